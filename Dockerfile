# Two images from one file: `web` (pages, API, beat, management commands) has no model runtime; `worker` adds it.

FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/venv/bin:$PATH \
    PRODUCTION=1 HOST=0.0.0.0 PORT=8000 HEMATOVISION_VAR=/data STATIC_ROOT=/app/collected-static
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hematovision \
    && install -d -o hematovision -g hematovision -m 0700 /data
WORKDIR /app

FROM base AS web-packages
COPY requirements-web.txt .
COPY requirements-s3.txt .
# docker build --build-arg S3=1: for originals in a bucket.
ARG S3=
RUN python -m venv /venv \
    && pip install --no-cache-dir --require-hashes --no-deps --only-binary=:all: \
        -r requirements-web.txt ${S3:+-r requirements-s3.txt}

FROM web-packages AS worker-packages
COPY requirements-worker.txt .
RUN pip install --no-cache-dir --require-hashes --no-deps --only-binary=:all: -r requirements-worker.txt

FROM web-packages AS code
COPY manage.py ./
COPY hematovision hematovision
COPY accounts accounts
COPY classifier classifier
COPY ml ml
COPY templates templates
COPY static static
# The key only lets the settings load here; it is not kept in the image.
RUN SECRET_KEY=build HEMATOVISION_VAR=/tmp/build python manage.py collectstatic --noinput

FROM base AS web
COPY --from=web-packages /venv /venv
COPY --from=code /app /app
USER hematovision
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["python", "-m", "hematovision.readiness", "/healthz"]
CMD ["python", "-m", "hematovision.web", "hematovision.wsgi", "--bind", "0.0.0.0:8000", \
     "--worker-class", "hematovision.slow_clients.PatientWorker", "--threads", "4", "--preload", \
     "--timeout", "60", "--graceful-timeout", "8", "--keep-alive", "5", "--no-control-socket"]

FROM base AS worker
COPY --from=worker-packages /venv /venv
COPY --from=code /app /app
USER hematovision
VOLUME /data
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s \
    CMD ["sh", "-c", "python -m celery -A hematovision inspect ping --destination celery@$(hostname)"]
CMD ["python", "-m", "celery", "-A", "hematovision", "worker", "--pool", "prefork", \
     "--without-gossip", "--without-mingle", "--loglevel", "INFO"]
