"""VideoConvMAE: the ConvViT trunk on clips, its masked autoencoder and its classifier."""
