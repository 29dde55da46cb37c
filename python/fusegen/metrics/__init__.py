"""Measures of what generative models make: images by features, sequences by post-hoc networks."""

from .digits import DigitsClassifier, digits_classifier
from .frechet import GaussianFit, frechet_distance, gaussian_frechet, symmetric_root
from .images import digits_frechet_distance, image_measures
from .kernel import KernelDistance, kernel_distance, polynomial_mmd
from .scores import InceptionScore, PrecisionRecall, inception_score, precision_recall
from .sequences import PostHoc, discriminative_score, predictive_score

__all__ = [
    "DigitsClassifier",
    "GaussianFit",
    "InceptionScore",
    "KernelDistance",
    "PostHoc",
    "PrecisionRecall",
    "digits_classifier",
    "digits_frechet_distance",
    "discriminative_score",
    "frechet_distance",
    "gaussian_frechet",
    "image_measures",
    "inception_score",
    "kernel_distance",
    "polynomial_mmd",
    "precision_recall",
    "predictive_score",
    "symmetric_root",
]
