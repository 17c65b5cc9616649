"""How near pictures are to their sources: meters that are fed frame by frame and need as little memory for any clip."""
