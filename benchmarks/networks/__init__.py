"""Networks that suites measure: discriminators of the GAN step, recurrent parts of published models."""
