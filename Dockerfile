# The command line in a container, with the versions that were tested.
#
#   docker build -t lit-splitmask .
#   docker run --gpus all --shm-size 8g --user "$(id -u):$(id -g)" -v "$PWD:/work" lit-splitmask plan photos
#
# Without a GPU, for an image that is several GB smaller:
#
#   docker build -t lit-splitmask --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
FROM python:3.11-slim-bookworm

ARG EXTRAS=dense,stream,export
ARG PIP_EXTRA_INDEX_URL=

WORKDIR /src
COPY constraints.txt pyproject.toml setup.cfg README.md LICENSE ./
COPY lit_splitmask lit_splitmask
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

# Any user may run it: libraries keep their caches in HOME.
ENV HOME=/tmp
WORKDIR /work
USER 65534:65534
ENTRYPOINT ["lit-splitmask"]
CMD ["--help"]
