# One service of the control plane:
#   docker build --build-arg SERVICE=operator -t fairlead-operator:0.1.0 .
#   docker build --build-arg SERVICE=gateway  -t fairlead-gateway:0.1.0 .
# BASE is any image with Python 3.11 or newer, its venv module and pip; give a digest for a release.
ARG BASE=python:3.13-slim

FROM ${BASE} AS wheels
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONHASHSEED=0
WORKDIR /src
COPY requirements/build.txt requirements/
RUN python3 -m pip install --quiet --no-compile --require-hashes --no-deps --target /build -r requirements/build.txt
COPY pyproject.toml README.md ./
COPY agent_image agent_image
COPY crds crds
COPY configs configs
COPY manifests manifests
COPY operator operator
RUN PYTHONPATH=/build python3 -m hatchling build -t wheel -d /wheels \
 && cd agent_image && PYTHONPATH=/build python3 -m hatchling build -t wheel -d /wheels

# The packages are installed where they stay, and those of all services first, in a layer that the images share.
FROM ${BASE} AS release
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_PYTHON=/opt/fairlead/bin/python
COPY requirements/control.txt /opt/fairlead/requirements/
RUN python3 -m venv --without-pip /opt/fairlead \
 && python3 -m pip install --quiet --no-compile --require-hashes --no-deps -r /opt/fairlead/requirements/control.txt \
 && python3 -m compileall -qq -j 0 /opt/fairlead/lib
ARG SERVICE
COPY requirements/${SERVICE}.txt /opt/fairlead/requirements/
RUN python3 -m pip install --quiet --no-compile --require-hashes --no-deps -r /opt/fairlead/requirements/${SERVICE}.txt \
 && python3 -m compileall -qq -j 0 /opt/fairlead/lib
COPY --from=wheels /wheels /opt/fairlead/wheels
RUN python3 -m pip install --quiet --no-compile --no-deps /opt/fairlead/wheels/*.whl \
 && python3 -m compileall -qq /opt/fairlead/lib
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
