"""Everything the notebooks import. One idea a module:

folders        image folders <-> uint8 arrays; what could not be read is returned, never swallowed
course_data    fills the data folders; `python -m utils data --help`
cache          folders of more images than memory holds, decoded once into a mapped file
public_images  Fashion-MNIST and CelebA, read and split
archives       archives checked before extraction, resumable downloads
runs           profile, seed, device, run folder, hyper-parameters
checkpoints    atomic save, exact resume, weights as safetensors
training       the one loop every model shares
latent_flow    the prior of a VAE's latents
networks       the convolutional building blocks of the models
dcgan, vae     one model family each: the modules, its loss as one `step`, its `sample`
pixelcnn       an autoregressive model with exact likelihood
flow           an invertible one
families       VAE, GAN, PixelCNN, flow and diffusion by one interface, for the final assignment
judge          a classifier of the data's own classes, whose features say how near samples are
classifier     tells real from VAE from GAN: the network, its training, cross-validation
calibration    from logits to probabilities: temperature, class shares, stacking
unlabelled     what images without labels can teach: reals against a mixture, pseudo-labels
hand_classes   the labelled, further and test images of the classification, and what is odd in them
heads          head slices: loading, splitting, `generate`; `python -m utils fill IN.npy OUT.npy`
stripes        the missing stripes: mask, variants of it, classical filling
unet           fills the stripes: the network, its augmentation and loss, its uncertainty
diffusion      generates images by taking noise away, with the `diffusers` library
restoration    how good filled images are: PSNR, SSIM, traces of the stripes
labels         the classification's CSV: written in one step, read back, compared with a truth
search         Optuna studies that resume, their tables and plots
train          one of those families from the command line, on one process or many; `python -m utils train --help`
likelihood     bits per dimension; the bounds of VAE and diffusion
fidelity       how close generated images are to real ones, and whether they were memorised
figures        grids, curves, and the source of an imported object in a notebook's output
submission     checks, renames and exports a hand-in; `python -m utils --help`
report         one static site from the executed notebooks, `make report`
briefs         what each brief asks for, as data
checks         what they can ask for, one function each
inspection     reads somebody's hand-in without running anything of it
exporting      puts together a brief's layout
renaming       gives files and texts the author's username, all or nothing
notebooks      executes notebooks; `python -m utils notebooks --help`

`python -m utils run` and `python -m utils test` make the environment first (see `__main__`).
"""
