"""Own data: any folder of annotated images, recognized, split and written in one standard form per task."""
