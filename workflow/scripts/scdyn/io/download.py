"""Download public files and verify their SHA-256."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import pandas as pd

from scdyn.errors import InputError, find_disk_fault
from scdyn.io.files import atomic
from scdyn.log import logger

# Timeout of a request in seconds.
TIMEOUT = 60
# Retries of a failed download.
RETRIES = 3
BLOCK_BYTES = 2**20
# Download folder, relative to the folder in which Snakemake is started.
DOWNLOADS = "resources/downloads"
# Names of each genome build in Ensembl, UCSC and Cell Ranger, one pattern per build.
BUILDS = (
    r"GRCh38|hg38",
    r"GRCh37|hg19|b37",
    r"GRCm39|mm39",
    r"GRCm38|mm10",
    r"mRatBN7|rn7",
    r"Rnor_?6|rn6",
    r"GRCz11|danRer11",
)


@dataclass(frozen=True)
class Resource:
    """A public file.

    Attributes
    ----------
    url
        Source: https, ``file://`` or a path.
    sha256
        Of the file; empty if unknown.
    kind
        "annotation", "tfs", "rankings" or "motifs".
    species
        "human" or "mouse".
    genome
        UCSC's name of the build (hg38, mm10, mm39); empty if the file applies to any build.
    reference
        Cell Ranger's reference that is made from it, such as mm10-2020-A; may be empty.
    """

    url: str
    sha256: str = ""
    kind: str = ""
    species: str = ""
    genome: str = ""
    reference: str = ""


def read_catalogue(
    path: str | Path, mirror: str | None = None, sha256: Mapping[str, str] | None = None
) -> dict[str, Resource]:
    """Read which files can be fetched, by name.

    Parameters
    ----------
    path
        Table of ``name``, ``what`` and the columns of :class:`Resource`.
    mirror
        Folder or URL that has the files under their names, and is used instead of the table's.
    sha256
        By name, over the table's.

    Raises
    ------
    InputError
        If ``sha256`` has a name that the table lacks.
    """
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).set_index("name")
    sha256 = dict(sha256 or {})
    for name in sha256:
        if name not in table.index:
            raise InputError(
                "DOWNLOAD",
                f"resources.sha256 names '{name}', which is not in {path}; it has "
                f"{', '.join(table.index)}.",
            )
    return {
        row.Index: Resource(
            f"{mirror.rstrip('/')}/{row.Index}" if mirror else row.url,
            sha256.get(row.Index, row.sha256),
            *(row.kind, row.species, row.genome, row.reference),
        )
        for row in table.itertuples()
    }


def annotation_of(genome: str, catalogue: pd.DataFrame, folder: str = DOWNLOADS) -> str:
    """Name the catalogue's annotation of the genome build that Cell Ranger says it used.

    Parameters
    ----------
    genome
        Name of its reference, such as ``refdata-gex-mm10-2020-A`` or ``GRCh38``.
    catalogue
        ``name`` of each file; every other column but ``url`` may tell its build.
    folder
        Where the catalogue's files are fetched to.

    Returns
    -------
    str
        Path of the file; empty if the build is not known, or the catalogue has none of it. Of
        several the one that names the reference's release, else the first.
    """
    annotations = catalogue[catalogue["name"].str.contains(r"\.(?:gtf|bed)(?:\.gz)?$")].fillna("")
    texts = annotations.drop(columns="url", errors="ignore").astype(str).agg(" ".join, axis=1)
    for build in BUILDS:
        if not re.search(build, genome, re.IGNORECASE):
            continue
        names = annotations["name"][texts.str.contains(build, case=False)]
        release = re.search(r"\d{4}-[A-Z]\b", genome)
        exact = names[texts[names.index].str.contains(release[0])] if release else names[:0]
        return next((f"{folder}/{name}" for name in [*exact, *names]), "")
    return ""


def compare_builds(catalogue: Mapping[str, Resource], paths: Iterable[str]) -> str:
    """Compare species and builds of the public files that a study names.

    Parameters
    ----------
    catalogue
        As :func:`read_catalogue` returns it.
    paths
        Files of the study; those outside the catalogue are ignored.

    Returns
    -------
    str
        A warning if annotation and motif rankings are of different builds (rankings use gene
        symbols, so most genes are found nevertheless); empty if the builds agree.

    Raises
    ------
    InputError
        If two of them are of different species.
    """
    found = {Path(path).name: catalogue.get(Path(path).name) for path in paths}
    named = {name: resource for name, resource in found.items() if resource}
    first, *others = named or [""]
    for other in others:
        if named[first].species != named[other].species:
            raise InputError(
                "GENOMES",
                f"{first} is for {named[first].species} but {other} for {named[other].species}; "
                "name annotation, TFs, rankings and motifs of one species "
                "(resources/catalogue.tsv).",
            )
    of_kind = {kind: n for n, r in named.items() for kind in (r.kind,) if r.genome}
    annotation, rankings = of_kind.get("annotation"), of_kind.get("rankings")
    if not annotation or not rankings or named[annotation].genome == named[rankings].genome:
        return ""
    genome = named[rankings].genome
    fitting = [
        name + (f" ({resource.reference})" if resource.reference else "")
        for name, resource in catalogue.items()
        if resource.kind == "annotation" and resource.genome == genome
    ]
    return (
        f"{annotation} is of {named[annotation].genome} and {rankings} of {genome}: genes that "
        "were renamed between the two builds are not ranked. Keep it if Cell Ranger was run with "
        f"this build; of {genome} there are {', '.join(fitting)}."
    )


def fetch(resource: Resource, path: str | Path) -> str:
    """Download a file atomically by pooch, and write its SHA-256 to ``{path}.sha256``.

    Parameters
    ----------
    resource
        What to fetch.
    path
        Output path. An existing file with this hash is kept.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    InputError
        If it cannot be fetched, is cut short, or is not the file that the hash says.
    """
    import pooch  # of the rules' environment; the catalogue is read in Snakemake's

    path = Path(path)
    scheme = urlsplit(resource.url).scheme if "://" in resource.url else ""
    if scheme not in ("https", "file", ""):
        raise InputError(
            "DOWNLOAD",
            f"{resource.url}: only https://, file:// and paths are read; name one of these.",
        )
    files = pooch.create(
        path=path.parent,
        base_url="",
        registry={path.name: resource.sha256.lower() or None},
        urls={path.name: resource.url},
        retry_if_failed=RETRIES if scheme == "https" else 0,
    )
    try:
        files.fetch(path.name, downloader=download if scheme == "https" else copy)
    except InputError:
        raise
    except OSError as error:
        if find_disk_fault(error, path.parent):
            raise
        raise InputError(
            "DOWNLOAD",
            f"{resource.url}: cannot be fetched ({error}); check the network, or run "
            "'snakemake resources' where there is one and copy the files, or name a folder "
            "that has them in resources.mirror.",
        ) from error
    except ValueError as error:
        raise InputError(
            "DOWNLOAD",
            f"{resource.url}: is not the file that was asked for ({error}); it was changed on the "
            "way, or resources.sha256 is of another version.",
        ) from error
    found: str = pooch.file_hash(str(path))
    if not resource.sha256:
        logger.warning(
            "%s: no SHA-256 is known of it; to hold later runs to this file, write '%s: %s' "
            "under resources.sha256 in the config",
            resource.url,
            path.name,
            found,
        )
    with atomic(f"{path}.sha256") as temporary:
        temporary.write_text(f"{found}  {path.name}\n")  # as sha256sum writes and checks it
    return found


def download(url: str, output_file: str, files: Any) -> None:
    """Download by https; one of pooch's downloaders."""
    import pooch

    read = pooch.HTTPDownloader(
        progressbar=True,
        chunk_size=BLOCK_BYTES,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},
        hooks={"response": check_response},
    )
    try:
        read(url, output_file, files)
    except BaseException:
        print(file=sys.stderr)  # a failed download leaves the progress bar without a line break
        raise


def check_response(response: Any, **_: Any) -> None:
    """Refuse redirects away from https, and keep a compressed file as it is.

    Raises
    ------
    InputError
        If the server leads to an address that is not https.
    """
    # Some servers call a file that ends in .gz an encoding, which requests would unpack.
    response.raw.headers.discard("Content-Encoding")
    target = urljoin(response.url, response.headers.get("Location", ""))
    if response.is_redirect and urlsplit(target).scheme != "https":
        raise InputError(
            "DOWNLOAD",
            f"{response.url}: its server leads to {target}, which is not https; name another "
            "address, or a folder that has the files, in resources.mirror.",
        )


def copy(url: str, output_file: str, files: Any) -> None:
    """Copy a ``file://`` address or a path; one of pooch's downloaders."""
    source = url2pathname(urlsplit(url).path) if "://" in url else url
    shutil.copyfile(source, output_file)
