"""Who is given memories (state.py), the times of recall (recall_times.py), the fuse (fuse.py)."""
