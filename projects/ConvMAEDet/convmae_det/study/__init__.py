"""What pretraining gives on real images: resumable studies made of the project's own commands."""
