"""`python -m utils`, but the models have no dropout: python -m tests.without_dropout train PixelCNN ...

A PixelCNN draws random numbers only for its dropout, and each process draws its own. Without dropout, several processes
must train the same model as one process.
"""

from utils import __main__ as command
from utils.models import zoo

committed = zoo.committed_settings
zoo.committed_settings = lambda *asked: committed(*asked) | {"dropout": 0.0}

if __name__ == "__main__":
    command.main()
