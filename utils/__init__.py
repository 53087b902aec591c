"""Everything that the notebooks import, and the one command: python -m utils COMMAND.

The list begins with the lowest room. A module imports only from its own room (with its sub-folders) and from rooms
that are listed before it.

files              writes files completely or not at all; reads paths from the command line; prints any file name
config             the project's folders, the profiles, the notebooks of each task, the hyper-parameters
budgets            how much each notebook does in each profile: numbers of images, steps and trials

data/              from files to arrays of images
  image_files      image folders <-> uint8 arrays; writes the JPEGs
  hand_images      the real hands, split into training and held-out images
  labelled_hands   the images of the classification coursework: labelled, locked, test
  label_csv        the CSV with a label for each test image
  head_images      the head slices: reading, writing, splitting
  masks            the missing stripes of the heads: where they are, and classical ways to fill them
  public_images    Fashion-MNIST and CelebA
  sources          fills the data folders from a folder, an archive or the network
  filling          moves verified files into the data folders, all or none; writes stand-ins if there are no real images
  archives         reads archives and verifies them to their end; downloads MedNIST
  likeness         how similar images are: finds copies, also mirrored, shifted or saved again
  cache            for folders that do not fit into memory: decodes their images once, into one file

training/          how every model is trained
  loop             the one training loop: `fit`
  run              the parts of the loop: restore, step, record, save
  recording        records a training step on a GPU, and replays it
  identity         decides whether two trainings are the same run: same settings, data and source code
  kept             results in files, made again only if what they depend on has changed
  checkpoints      checkpoints that survive a killed process, and weights as safetensors
  progress         the bar and the plots while a training runs
  devices          seeds, the device, the number format, several processes
  search           hyper-parameter searches that survive a killed process

models/            the networks: `step` is one training step of a model, `sample` makes new images
  blocks           convolutional building blocks
  vae              variational autoencoder of coursework 1
  latent_flow      the prior of its latents
  dcgan            GAN of coursework 1
  augmentation     what the discriminators see: changed images, and images as JPEGs
  spatial_vae      VAE of the final assignment, with a map of latents and a likelihood of grey levels
  latent_transformer  the prior of its latents
  gan              GAN of the final assignment, from random weights, also for classes
  residual_gan     GAN of residual blocks from random weights; an opponent of `dcgan`
  pixelcnn         autoregressive model
  flow             normalising flow
  diffusion        diffusion model
  unet             the U-Net of the diffusion model
  zoo              trains VAE, GAN, PixelCNN, flow and diffusion in the same way; also for the command `train`
  classifier       classifies hands: real, made by a VAE, or made by a GAN; a small detector of generated images
  shipped          makes new images with the weights in this repository; for the command `sample`

models/heads/      fills the missing stripes of head slices
  imputer          the model: losses, training, filling
  networks         its U-Net
  gated            the same with gated convolutions; an opponent
  augmentation     random changes of head slices

evaluation/        measures how good the results are
  fidelity         distance, precision and recall between generated and real images; finds copies
  feature_spaces   the features that `fidelity` compares, and the classifier that computes some of them
  detector         trains the `Detector` of `models/classifier`, to choose samples and to measure them
  likelihood       bits per dimension
  garment_study    the final models of the last assignment: how each is trained, sampled and measured
  calibration      turns logits into probabilities
  cross_validation stratified folds that keep copies together; trains the classifier once for each fold
  pu_learning      learns from images without labels (positive-unlabelled learning)
  generator_study  the trainings of coursework 1: VAE, GAN, their opponents, the trials of the search
  hand_study       the trainings of coursework 2: with the test folder, of the table's rows, of the search
  head_study       the data and the trainings of the MRI project: imputers, generator of heads
  restoration      measures how good filled head slices are

handin/            checks, renames and packs a hand-in; needs no torch
  briefs           reads what each brief asks for, from the TOML files in briefs/
  recognise        finds out which briefs a hand-in answers, and which file is what
  compare          compares a hand-in with its brief and prints the result
  classes          checks a whole class; finds copies between students; scores against a truth
  source           reads Python code: what a cell must show, imports, pre-trained weights
  inspection       reads other people's hand-ins safely, folders and zip files
  rename           puts the author's username and name into file names and texts
  export           copies what a brief asks for into a new folder

handin/checks/     what a brief can ask of a file
  files            it is there, with its name, at its place
  notebooks        executed, explained, signed ...
  samples          generated images: number, names, format, copies
  label_tables     the CSV of labels
  filled_heads     the array of filled head images
  texts            reads Markdown; references, answers and report

notebooks/         works with notebooks
  execute          executes notebooks and prints the remaining time
  results          shows the results of a run: paths, one picture of all hands, the number of each label
  figures          shows pictures and source code in a notebook
  colab            prepares a notebook in Colab; writes the address of a copy into links and notebooks
  site             makes a static website of the notebooks, with a first page of cards
  convert          turns notebooks and Markdown into pages of the site
  pages            the form of a page; grids of small images
  galleries        the site's pages of hands, heads and garments
  pictures         draws the pictures of the README
  eye_test         the site's page "real or generated?", where one judges hands by eye

commands/          the commands of `python -m utils`, one module for each group
  arguments        arguments that several commands share
  environment      `install`, `run`, `test`, `notebooks`
  data             `data`
  train            `train`
  sample           `sample`
  fill             `fill`
  hand_in          `check`, `rename`, `export`, `colab`
  report           `report`, `pictures`
"""

OLDEST_PYTHON = (3, 11)  # the oldest Python on which the versions in constraints.txt can be installed
