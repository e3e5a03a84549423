"""The web view: what is being mapped and learned, live in a browser, for machines without rviz2."""
