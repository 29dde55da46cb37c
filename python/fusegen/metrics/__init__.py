"""Measures of generative models: images by features, sequences by post-hoc networks, text, likelihoods."""

from .digits import DigitsClassifier, digits_classifier
from .frechet import GaussianFit, frechet_distance, gaussian_frechet, symmetric_root
from .images import digits_frechet_distance, image_measures
from .judges import Spread, judged, series_errors
from .kernel import KernelDistance, kernel_distance, polynomial_mmd
from .likelihood import LatentMeasures, bits_per_character, latent_measures, perplexity
from .ngrams import NGram
from .scores import InceptionScore, PrecisionRecall, inception_score, precision_recall
from .sequences import PostHoc, discriminative_score, predictive_score
from .spectra import AutoregressiveFit, log_spectral_distance
from .translation import bleu, exact_match, self_bleu
from .writing import bigram_divergence, copied_share, unique_share

__all__ = [
    "AutoregressiveFit",
    "DigitsClassifier",
    "GaussianFit",
    "InceptionScore",
    "KernelDistance",
    "LatentMeasures",
    "NGram",
    "PostHoc",
    "PrecisionRecall",
    "Spread",
    "bigram_divergence",
    "bits_per_character",
    "bleu",
    "copied_share",
    "digits_classifier",
    "digits_frechet_distance",
    "discriminative_score",
    "exact_match",
    "frechet_distance",
    "gaussian_frechet",
    "image_measures",
    "inception_score",
    "judged",
    "kernel_distance",
    "latent_measures",
    "log_spectral_distance",
    "perplexity",
    "polynomial_mmd",
    "precision_recall",
    "predictive_score",
    "self_bleu",
    "series_errors",
    "symmetric_root",
    "unique_share",
]
