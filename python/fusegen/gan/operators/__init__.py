"""What a discriminator's modules compute, each with its first and second derivative."""
