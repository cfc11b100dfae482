# Two images. `worker` (the default): the workers alone: no embedded Kafka, no simulator, no compiler, no pip, no root,
# nothing written but to the terminal, so it runs with a read-only file system. REVISION is the label of the commit.
# Podman drops the health check without `--format docker`.
#
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t stream-scorer .
#   docker run --read-only --cap-drop ALL -e STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS=… -e GENESYS_CLIENT_ID=… stream-scorer
#
# `local`: the same with the extra [local], for the simulator and the receiver of docker-compose.yml:
#
#   docker build --target local -t stream-scorer-local .
FROM python:3.13.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# First what changes seldom: these layers stay as long as the locks do.
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m pip install --require-hashes --requirement requirements/build.txt \
    && python -m venv --without-pip /app \
    && python -m pip --python /app/bin/python install --require-hashes --only-binary :all: --requirement requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY docs docs
COPY stream_scorer stream_scorer
RUN python -m hatchling build --target wheel \
    && python -m pip --python /app/bin/python install --no-deps --no-index dist/*.whl
COPY deploy/healthy.py /app/healthy.py
# The Python packages of the image, CycloneDX; the system's packages are in its dpkg database.
RUN python -m cyclonedx_py environment --pyproject pyproject.toml --output-reproducible --output-file /app/sbom.cdx.json /app/bin/python

# What the worker has, and what the simulator and the receiver need besides.
FROM build AS build-local
COPY requirements/local.txt requirements/
RUN python -m pip --python /app/bin/python install --require-hashes --only-binary :all: --requirement requirements/local.txt \
    && python -m cyclonedx_py environment --pyproject pyproject.toml --output-reproducible --output-file /app/sbom.cdx.json /app/bin/python

FROM python:3.13.12-slim-bookworm AS base
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# An init as process 1: it forwards SIGTERM from the start and reaps orphaned processes. -s: quiet where compose's own
# init is before it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/*
# The base brings a pip of its own, and ensurepip one to install.
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
    && rm -rf /usr/local/lib/python3.13/ensurepip
ARG REVISION=unknown
LABEL org.opencontainers.image.title="stream-scorer" \
      org.opencontainers.image.description="Scores contacts from Kafka through Genesys Cloud Predictive Engagement, exactly once." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/python:3.13.12-slim-bookworm"
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /app
ENTRYPOINT ["tini", "-s", "--", "stream-scorer"]

FROM base AS local
COPY --from=build-local /app /app
EXPOSE 8090 8091
CMD ["simulate", "--host", "0.0.0.0"]

# The last one, so it is what `docker build .` makes.
FROM base AS worker
# Probes come from outside the container, so the admin port listens on all of its interfaces.
ENV STREAM_SCORER_ADMIN__HOST=0.0.0.0
COPY --from=build /app /app
EXPOSE 9464 9465
# Ready means that contacts are being scored. The first responses are late if a rebalance has to complete first. For
# `callbacks` give the port: python /app/healthy.py 9465.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/app/healthy.py"]
CMD ["run"]
