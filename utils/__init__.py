"""Everything that the notebooks import, and the one command: python -m utils COMMAND.

The rooms, from the bottom up. A module imports only from its own room and from the rooms above it in this list.

files              writes files whole or not at all; paths from the command line; names that every console can print
config             the project's folders, the profiles, the notebooks of each task, the hyper-parameters
budgets            how much each notebook does in each profile: numbers of images, steps and trials

data/              from files to arrays of images
  image_files      image folders <-> uint8 arrays; writes the JPEGs
  hand_images      the real hands, split into training and held-out images
  labelled_hands   the labelled and the test images of the classification coursework
  label_csv        the CSV with a label for each test image
  head_images      the head slices: reading, writing, splitting, augmenting
  masks            the missing stripes of the heads: where they are, and classical ways to fill them
  public_images    Fashion-MNIST and CelebA
  sources          fills the data folders from a folder, an archive or the network
  filling          puts verified files into a data folder, all or nothing; stand-ins only where there are none
  archives         archives that are verified before a file is put in place, and MedNIST's download
  cache            folders of more images than memory holds, decoded once into one file

training/          how every model is trained
  loop             the one training loop: `fit`
  run              the parts of the loop: restore, step, record, save
  identity         what makes two trainings the same run: settings, data and source
  checkpoints      checkpoints that survive a kill, and weights as safetensors
  progress         the bar and the plots while a training runs
  devices          seeds, the device, the number format, several processes
  search           hyper-parameter studies that go on after a kill

models/            the networks, each with its loss as `step` and its images as `sample`
  blocks           convolutional building blocks
  vae              variational autoencoder
  latent_flow      the prior of a VAE's latents
  dcgan            GAN
  pixelcnn         autoregressive model
  flow             normalising flow
  diffusion        diffusion model
  zoo              trains these five families in one way, also on a folder for the command `train`
  classifier       tells real hands from those of VAEs and GANs
  imputer          fills the missing stripes of head slices
  shipped          new hands and heads from the weights in this repository, for the command `sample`

evaluation/        how good the results are
  fidelity         distance, precision and recall between generated and real images, and copies
  feature_spaces   the features that these measures compare, and the classifier that some of them come from
  sample_sizes     checks that there are enough images for a measure
  detector         a detector of generated images, used as a measure
  likelihood       bits per dimension
  grey_levels      probabilities of whole grey levels
  calibration      from logits to probabilities
  cross_validation trains the classifier once for each fold
  folds            stratified folds that keep copies together
  pu_learning      what images without labels can teach
  restoration      how good filled head slices are

handin/            checks, renames and packs a hand-in; needs no torch
  briefs           what each brief asks for, as data
  compare          compares a hand-in with its brief and prints the results
  check_notebooks  checks of notebooks: executed, explained, signed ...
  check_samples    checks of generated images: number, names, format, copies
  check_tables     checks of the CSV of labels and of the filled head images
  check_texts      checks of references, answers and report
  inspection       reads somebody else's hand-in safely
  rename           puts the author's username into names and texts
  export           copies what a brief asks for into a new folder

notebooks/         notebooks as files
  execute          executes them and says how long it still takes
  results          what a run has made: paths, one sheet of hands, label counts
  figures          pictures and source code for their outputs
  colab            their "Open in Colab" links
  site             a static site made from them

commands/          the commands of `python -m utils`, one module for each group
  arguments        what the commands share
  environment      `run`, `test`, `notebooks`
  data             `data`
  train            `train`
  sample           `sample`
  fill             `fill`
  hand_in          `check`, `rename`, `export`, `colab`
  report           `report`
"""

OLDEST_PYTHON = (3, 11)  # the oldest Python for which the versions in constraints.txt can be installed
