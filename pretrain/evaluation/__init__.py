"""What trained weights are worth: accuracy, features, nearest neighbours, reconstructions."""
