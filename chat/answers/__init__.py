"""One answer, from the accepted message to the saved text. Start reading at runner.py."""
