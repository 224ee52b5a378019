# One service of the control plane:
#   docker build --build-arg SERVICE=operator -t fairlead-operator:0.1.0 .
#   docker build --build-arg SERVICE=gateway  -t fairlead-gateway:0.1.0 .
# BASE is any image with Python 3.11 or newer, its venv module and pip; give a digest for a release.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG SERVICE
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/fairlead
WORKDIR /src
COPY requirements/build.txt requirements/${SERVICE}.txt requirements/
RUN /build/bin/pip install --require-hashes -r requirements/build.txt \
 && /build/bin/pip --python /opt/fairlead/bin/python install --require-hashes -r requirements/${SERVICE}.txt
COPY pyproject.toml README.md ./
COPY agent_image agent_image
COPY crds crds
COPY configs configs
COPY manifests manifests
COPY operator operator
RUN /build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./agent_image . \
 && /build/bin/pip --python /opt/fairlead/bin/python install --no-deps /wheels/*.whl \
 && /opt/fairlead/bin/python -m compileall -q /opt/fairlead/lib

FROM ${BASE} AS release
COPY --from=build /opt/fairlead /opt/fairlead
ENV PATH=/opt/fairlead/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1
USER 10001:10001
WORKDIR /tmp
# The manifests name the command: python -m fairlead.controllers, or python -m fairlead.gateway.
CMD ["fairlead", "--help"]

# For Tilt: the sources in a place that may be written to, ahead of what is installed.
FROM release AS dev
COPY --chown=10001:10001 operator/fairlead /live/fairlead
COPY --chown=10001:10001 agent_image/fairlead_agent /live/fairlead_agent
ENV PYTHONPATH=/live

FROM release
