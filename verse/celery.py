"""What Celery's own commands load: ``celery -A verse inspect ping``."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")

from retrieval.embed_queue.celery_engine import app as app
