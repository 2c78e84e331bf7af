"""What every host of terms shares: layers that add losses, and the optimizer."""
