"""What a sparse autoencoder has learned: its dictionary and its code, on data."""
