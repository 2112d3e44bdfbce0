FROM condaforge/miniforge3:latest
LABEL io.github.snakemake.containerized="true"
LABEL io.github.snakemake.conda_env_hash="9b8db96c536d02884d706d605d134ed20c945c5241d88ab5e8303eb38787429f"
# Conda environment:
#   source: envs/analysis.yaml
#   prefix: /conda-envs/c616d6de798259389231058713e7ca94
#   # Everything on tables of cells: reference, ingest, QC, studies, figures, report.
#   # pytest, hypothesis and mudata, which writes .h5mu, are here because the library's tests run in
#   # the environments its rules run in.
#   channels:
#     - conda-forge
#   dependencies:
#     - python=3.11
#     - pip
#     - pip:
#         - scanpy==1.11.5
#         - anndata==0.12.19
#         - zarr==3.1.6
#         - polars==2.1.0
#         - pyarrow==26.0.1
#         - pysam==0.24.1
#         - scikit-learn==1.9.1
#         - xgboost-cpu==3.1.2
#         - pydeseq2==0.5.4
#         - matplotlib==3.11.2
#         - jinja2==3.1.6
#         - pooch==1.9.0
#         - pytest==9.2.0
#         - hypothesis==6.170.17
#         - mudata==0.3.10
#         # What these pull in, as resolved.
#         - array-api-compat==1.16.0
#         - certifi==2026.10.18
#         - charset-normalizer==3.5.2
#         - cloudpickle==3.1.2
#         - contourpy==1.3.3
#         - cycler==0.12.1
#         - donfig==0.8.1.post1
#         - fonttools==4.68.0
#         - formulaic==1.2.2
#         - formulaic-contrasts==1.0.0
#         - google-crc32c==1.9.0
#         - h5py==3.16.0
#         - idna==3.20
#         - iniconfig==2.3.1
#         - interface-meta==2.0.1
#         - joblib==1.6.0
#         - kiwisolver==1.5.1
#         - legacy-api-wrap==1.5
#         - llvmlite==0.50.0
#         - markupsafe==3.0.4
#         - narwhals==2.29.0
#         - natsort==8.4.0
#         - networkx==3.6.1
#         - numba==0.68.1
#         - numcodecs==0.16.6
#         - numpy==2.4.6
#         - packaging==26.3
#         - pandas==2.3.3
#         - patsy==1.0.3
#         - pillow==13.0.0
#         - platformdirs==4.14.7
#         - pluggy==1.7.0
#         - polars-runtime-32==2.1.0
#         - pygments==2.21.0
#         - pynndescent==0.5.13
#         - pyparsing==3.3.3
#         - python-dateutil==4.0.0
#         - pytz==2026.6
#         - pyyaml==6.0.3
#         - requests==2.34.2
#         - scipy==1.17.1
#         - scverse-misc==0.0.3
#         - seaborn==0.13.2
#         - session-info==1.0.1
#         - session-info2==0.4.1
#         - sortedcontainers==2.4.0
#         - statsmodels==0.15.0
#         - stdlib-list==0.12.0
#         - threadpoolctl==3.8.0
#         - tqdm==4.70.1
#         - typing-extensions==4.16.0
#         - tzdata==2026.6
#         - umap-learn==0.5.12
#         - urllib3==2.8.0
#         - wrapt==2.5.2
RUN mkdir -p /conda-envs/c616d6de798259389231058713e7ca94
COPY envs/analysis.yaml /conda-envs/c616d6de798259389231058713e7ca94/environment.yaml
# Conda environment:
#   source: envs/grn.yaml
#   prefix: /conda-envs/981f5dffb471091f5f63b3a4bd867e28
#   # pySCENIC, which needs numpy 1 and pandas 1 and so an environment of its own; it is called
#   # through its command line only. setuptools is asked for because ctxcore imports pkg_resources,
#   # which newer releases no longer have.
#   channels:
#     - conda-forge
#   dependencies:
#     - python=3.11
#     - pip
#     - pip:
#         - pyscenic==0.12.1
#         - arboreto==0.1.6
#         - ctxcore==0.2.0
#         - numpy==1.23.5
#         - pandas==1.5.3
#         - dask==2023.12.1
#         - distributed==2023.12.1
#         - pyarrow==14.0.2
#         - scikit-learn==1.3.2
#         - numba==0.58.1
#         - scipy==1.11.4
#         - bokeh==3.3.4
#         - setuptools==80.9.0
#         # What these pull in, as resolved.
#         - aiohappyeyeballs==2.7.1
#         - aiohttp==3.14.5
#         - aiosignal==1.4.0
#         - attrs==26.1.0
#         - boltons==26.2.0
#         - certifi==2026.10.18
#         - charset-normalizer==3.5.2
#         - click==8.5.1
#         - cloudpickle==3.1.2
#         - contourpy==1.3.2
#         - cytoolz==1.2.0
#         - dill==0.4.1
#         - frozendict==2.5.1
#         - frozenlist==1.8.0
#         - fsspec==2026.9.0
#         - h5py==3.16.0
#         - idna==3.20
#         - importlib-metadata==10.2.0
#         - interlap==0.2.7
#         - jinja2==3.1.6
#         - joblib==1.6.0
#         - lazy-importer==0.1.0
#         - llvmlite==0.41.1
#         - locket==1.0.0
#         - loompy==3.0.8
#         - lz4==4.4.5
#         - markupsafe==3.0.4
#         - msgpack==1.2.4
#         - multidict==7.2.1
#         - multiprocessing-on-dill==3.5.0a4
#         - networkx==3.6.1
#         - numexpr==2.14.1
#         - numpy-groupies==0.16.0
#         - packaging==26.3
#         - partd==1.4.2
#         - pillow==13.0.0
#         - propcache==0.5.4
#         - psutil==7.2.2
#         - pyarrow-hotfix==0.7
#         - pynndescent==0.7.0
#         - python-dateutil==4.0.0
#         - pytz==2026.6
#         - pyyaml==6.0.3
#         - requests==2.34.2
#         - sortedcontainers==2.4.0
#         - tblib==3.2.2
#         - threadpoolctl==3.8.0
#         - toolz==1.2.0
#         - tornado==6.6.1
#         - tqdm==4.70.1
#         - typing-extensions==4.16.0
#         - tzdata==2026.6
#         - umap-learn==0.5.7
#         - urllib3==2.8.0
#         - xyzservices==2026.9.1
#         - yarl==1.25.1
#         - zict==3.0.0
#         - zipp==4.1.2
RUN mkdir -p /conda-envs/981f5dffb471091f5f63b3a4bd867e28
COPY envs/grn.yaml /conda-envs/981f5dffb471091f5f63b3a4bd867e28/environment.yaml
# Conda environment:
#   source: envs/scvi.yaml
#   prefix: /conda-envs/b7de2c50d7059af394fe909604732226
#   # The peers: scVI, scANVI and scib-metrics, optional (config key `peers`). scib-metrics pulls
#   # igraph, which is under the GPL: it is imported only by programs that run in this environment, and
#   # no other environment has it. pytest is here for tests/unit/scvi.
#   channels:
#     - conda-forge
#   dependencies:
#     - python=3.11
#     - pip
#     - pip:
#         - scvi-tools==1.4.2
#         - scib-metrics==0.5.10
#         - torch==2.13.0
#         - scanpy==1.11.5
#         - anndata==0.12.19
#         - scikit-learn==1.9.1
#         - pandas==2.3.3
#         - pytest==9.2.0
#         # What these pull in, as resolved.
#         - absl-py==2.5.1
#         - aiohappyeyeballs==2.7.1
#         - aiohttp==3.14.5
#         - aiosignal==1.4.0
#         - array-api-compat==1.16.0
#         - attrs==26.1.0
#         - chex==0.1.92
#         - cloudpickle==3.1.2
#         - contourpy==1.3.3
#         - cycler==0.12.1
#         - docrep==0.3.2
#         - donfig==0.8.1.post1
#         - filelock==4.2.12
#         - fonttools==4.68.0
#         - formulaic==1.2.2
#         - frozenlist==1.8.0
#         - fsspec==2026.9.0
#         - google-crc32c==1.9.0
#         - grpcio==1.85.3
#         - h5py==3.16.0
#         - idna==3.20
#         - igraph==1.0.0
#         - iniconfig==2.3.1
#         - interface-meta==2.0.1
#         - jax==0.10.2
#         - jaxlib==0.10.2
#         - jinja2==3.1.6
#         - joblib==1.6.0
#         - kiwisolver==1.5.1
#         - legacy-api-wrap==1.5
#         - lightning==2.6.6
#         - lightning-utilities==0.15.3
#         - llvmlite==0.50.0
#         - markdown==3.11.3
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - matplotlib==3.11.2
#         - mdurl==0.1.2
#         - ml-collections==1.1.0
#         - ml-dtypes==0.6.0
#         - mpmath==1.3.0
#         - mudata==0.3.10
#         - multidict==7.2.1
#         - narwhals==2.29.0
#         - natsort==8.4.0
#         - networkx==3.6.1
#         - numba==0.68.1
#         - numcodecs==0.16.6
#         - numpy==2.4.6
#         - opt-einsum==3.4.0
#         - packaging==26.3
#         - patsy==1.0.3
#         - pillow==13.0.0
#         - plottable==0.1.5
#         - pluggy==1.7.0
#         - propcache==0.5.4
#         - protobuf==7.36.2
#         - pygments==2.21.0
#         - pynndescent==0.5.13
#         - pyparsing==3.3.3
#         - pyro-api==0.1.2
#         - pyro-ppl==1.9.2
#         - python-dateutil==4.0.0
#         - pytorch-lightning==2.6.6
#         - pytz==2026.6
#         - pyyaml==6.0.3
#         - rich==15.0.0
#         - scikit-misc==0.5.3
#         - scipy==1.17.1
#         - scverse-misc==0.0.3
#         - seaborn==0.13.2
#         - session-info2==0.4.1
#         - setuptools==84.2.1
#         - six==1.17.0
#         - sparse==0.19.3
#         - statsmodels==0.15.0
#         - sympy==1.14.0
#         - tensorboard==2.21.0
#         - tensorboard-data-server==0.7.2
#         - texttable==1.7.2
#         - threadpoolctl==3.8.0
#         - toolz==1.2.0
#         - torchmetrics==1.9.0
#         - tqdm==4.70.1
#         - typing-extensions==4.16.0
#         - tzdata==2026.6
#         - umap-learn==0.5.12
#         - werkzeug==3.1.9
#         - wrapt==2.5.2
#         - xarray==2026.9.0
#         - yarl==1.25.1
#         - zarr==3.1.6
RUN mkdir -p /conda-envs/b7de2c50d7059af394fe909604732226
COPY envs/scvi.yaml /conda-envs/b7de2c50d7059af394fe909604732226/environment.yaml
# Conda environment:
#   source: envs/torch.yaml
#   prefix: /conda-envs/c2a07a43bc5d4b889874850ec34d372d
#   # The model: tokens, pretraining, adapters, attributions. On Linux torch also pulls the CUDA
#   # packages that belong to its release; a build without CUDA has none, so they are not listed.
#   # pytest is here because the library's unit tests run in the environments its rules run in.
#   channels:
#     - conda-forge
#   dependencies:
#     - python=3.11
#     - pip
#     - pip:
#         - torch==2.13.0
#         - peft==0.21.2
#         - safetensors==0.8.0
#         - anndata==0.12.19
#         - zarr==3.1.6
#         - scikit-learn==1.9.1
#         - pandas==2.3.3
#         - pytest==9.2.0
#         # What these pull in, as resolved.
#         - accelerate==1.15.0
#         - annotated-doc==0.0.7
#         - annotated-types==0.8.0
#         - anyio==4.16.0
#         - array-api-compat==1.16.0
#         - click==8.5.1
#         - cloudpickle==3.1.2
#         - donfig==0.8.1.post1
#         - filelock==4.2.12
#         - fsspec==2026.9.0
#         - google-crc32c==1.9.0
#         - h11==0.16.0
#         - h5py==3.16.0
#         - hf-xet==1.8.0
#         - httpcore2==2.16.2
#         - httpx2==2.16.2
#         - huggingface-hub==2.4.0
#         - idna==3.20
#         - iniconfig==2.3.1
#         - jinja2==3.1.6
#         - joblib==1.6.0
#         - legacy-api-wrap==1.5
#         - markdown-it-py==4.3.0
#         - markupsafe==3.0.4
#         - mdurl==0.1.2
#         - mpmath==1.3.0
#         - narwhals==2.29.0
#         - natsort==8.4.0
#         - networkx==3.6.1
#         - numcodecs==0.16.6
#         - numpy==2.4.6
#         - packaging==26.3
#         - pluggy==1.7.0
#         - psutil==7.2.2
#         - pydantic==2.14.3
#         - pydantic-core==2.50.4
#         - pygments==2.21.0
#         - python-dateutil==4.0.0
#         - pytz==2026.6
#         - pyyaml==6.0.3
#         - regex==2026.11.15
#         - rich==15.0.0
#         - scipy==1.17.1
#         - scverse-misc==0.0.3
#         - session-info2==0.4.1
#         - setuptools==84.2.1
#         - shellingham==1.5.4
#         - sympy==1.14.0
#         - threadpoolctl==3.8.0
#         - tokenizers==0.23.3
#         - tqdm==4.70.1
#         - transformers==5.23.0
#         - truststore==0.10.5
#         - typer==0.29.2
#         - typing-extensions==4.16.0
#         - typing-inspection==0.4.5
#         - tzdata==2026.6
RUN mkdir -p /conda-envs/c2a07a43bc5d4b889874850ec34d372d
COPY envs/torch.yaml /conda-envs/c2a07a43bc5d4b889874850ec34d372d/environment.yaml

RUN conda env create --prefix /conda-envs/c616d6de798259389231058713e7ca94 --file /conda-envs/c616d6de798259389231058713e7ca94/environment.yaml && \
    conda env create --prefix /conda-envs/981f5dffb471091f5f63b3a4bd867e28 --file /conda-envs/981f5dffb471091f5f63b3a4bd867e28/environment.yaml && \
    conda env create --prefix /conda-envs/b7de2c50d7059af394fe909604732226 --file /conda-envs/b7de2c50d7059af394fe909604732226/environment.yaml && \
    conda env create --prefix /conda-envs/c2a07a43bc5d4b889874850ec34d372d --file /conda-envs/c2a07a43bc5d4b889874850ec34d372d/environment.yaml && \
    conda clean --all -y
