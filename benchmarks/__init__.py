"""How long what the user waits for takes, and how this project's back end stands against GTSAM: `make bench`."""
