"""The model of HematoVision: finds the leukocyte in a picture, classifies it, and says when it does not know."""
