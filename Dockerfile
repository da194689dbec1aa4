# irtool in a container, with the models that ship; nothing is downloaded when it runs.
#
#   docker build -t irtool .
#   docker run --rm -v "$PWD:/work" irtool restore photos -o out
#   docker build -t irtool:cuda --build-arg TORCH=cu128 .      # then: docker run --gpus all ...
#
# TORCH is a build of PyTorch as uv names it: cpu, or a version of CUDA such as cu128.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install uv && uv venv /opt/irtool
ENV VIRTUAL_ENV=/opt/irtool
COPY . /src
RUN uv pip install --torch-backend ${TORCH} "/src[watch]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/irtool /opt/irtool
ENV PATH=/opt/irtool/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
# Files written to a mounted folder belong to this user; --user "$(id -u):$(id -g)" makes them yours.
RUN useradd --uid 1000 --no-create-home irtool
USER irtool
WORKDIR /work
ENTRYPOINT ["irtool"]
CMD ["--help"]
