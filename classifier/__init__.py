"""The clinical flow: a picture is uploaded, queued, claimed, predicted, reviewed and reported."""
