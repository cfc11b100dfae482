# syntax=docker/dockerfile:1
# The workers alone: no embedded Kafka, no simulator, no compiler, no root, nothing written but to the terminal, so it runs
# with a read-only file system:
#
#   docker build -t stream-scorer .
#   docker run --read-only --cap-drop ALL -e STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS=… -e GENESYS_CLIENT_ID=… stream-scorer
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# First what changes seldom: these layers stay as long as the locks do.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m pip install --require-hashes --requirement requirements/build.txt \
    && python -m venv --without-pip /app \
    && python -m pip --python /app/bin/python install --require-hashes --only-binary :all: --requirement requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY stream_scorer stream_scorer
RUN python -m hatchling build --target wheel \
    && python -m pip --python /app/bin/python install --no-deps --no-index dist/*.whl

FROM python:3.13-slim
# Probes come from outside the container, so the admin port listens on all of its interfaces.
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 STREAM_SCORER_ADMIN__HOST=0.0.0.0
COPY --from=build /app /app
USER 10001:10001
WORKDIR /app
EXPOSE 9464
# Ready means that contacts are being scored. Its first answers come late where a rebalance has to end first.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
admin = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('STREAM_SCORER_ADMIN__PORT', '9464')), timeout=4); \
admin.request('GET', '/readyz'); \
sys.exit(admin.getresponse().status != 200)"]
ENTRYPOINT ["stream-scorer"]
CMD ["run"]
