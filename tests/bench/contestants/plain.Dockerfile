# What people write for an agent that asks models by LiteLLM and knows Kubernetes: a Python image, and pip install.
ARG BASE=python:3.13-slim
FROM ${BASE}
COPY requirements/bench-image.txt requirements/
RUN python3 -m pip install --no-cache-dir --root-user-action ignore --require-hashes --no-deps --target /opt/agent \
      -r requirements/bench-image.txt \
 && python3 -m compileall -qq -j 0 /opt/agent
ENV PYTHONPATH=/opt/agent LITELLM_LOCAL_MODEL_COST_MAP=True
USER 10001:10001
ENTRYPOINT ["python3"]
