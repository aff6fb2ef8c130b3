"""Models as files for other runtimes, each compared with the model that it was made from."""
