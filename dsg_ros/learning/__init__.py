"""Learning theta online: held-out prediction losses, outer updates through the implicit Jacobian, and their guards."""
