"""Measures of generative models: images by features, sequences by post-hoc networks, text, likelihoods."""

from .digits import DigitsClassifier, digits_classifier
from .frechet import GaussianFit, frechet_distance, gaussian_frechet, symmetric_root
from .images import digits_frechet_distance, image_measures
from .judges import Spread, judged, series_errors
from .kernel import KernelDistance, kernel_distance, polynomial_mmd
from .likelihood import LatentMeasures, bits_per_character, latent_measures, perplexity
from .scores import InceptionScore, PrecisionRecall, inception_score, precision_recall
from .sequences import PostHoc, discriminative_score, predictive_score
from .translation import bleu, exact_match, self_bleu

__all__ = [
    "DigitsClassifier",
    "GaussianFit",
    "InceptionScore",
    "KernelDistance",
    "LatentMeasures",
    "PostHoc",
    "PrecisionRecall",
    "Spread",
    "bits_per_character",
    "bleu",
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
    "perplexity",
    "polynomial_mmd",
    "precision_recall",
    "predictive_score",
    "self_bleu",
    "series_errors",
    "symmetric_root",
]
