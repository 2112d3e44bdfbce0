"""Vocabulary and promoter windows, against positions worked out by hand."""

import bz2
import gzip

import numpy as np
import pandas as pd
import pytest

from scdyn.errors import InputError
from scdyn.io.checks import list_name_columns
from scdyn.io.chromosomes import to_ucsc_name
from scdyn.io.files import write_table
from scdyn.pp import reference

# ruff: noqa: E501
GTF = """\
#!genome-build toy
chr1\tx\tgene\t10001\t12000\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\ttranscript\t10001\t12000\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\texon\t10001\t10100\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\texon\t11901\t12000\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\ttranscript\t10051\t12000\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\texon\t10051\t10150\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\ttranscript\t10051\t11000\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr1\tx\texon\t10051\t10060\t.\t+\t.\tgene_id "ENSG2.3"; gene_type "protein_coding"; gene_name "Plus";
chr2\tx\ttranscript\t4001\t5000\t.\t-\t.\tgene_id "ENSG1.1"; gene_type "protein_coding"; gene_name "Minus";
chr2\tx\texon\t4001\t5000\t.\t-\t.\tgene_id "ENSG1.1"; gene_type "protein_coding"; gene_name "Minus";
chrM\tx\ttranscript\t1\t300\t.\t+\t.\tgene_id "ENSG3.1"; gene_type "protein_coding"; gene_name "mt-A";
chrM\tx\texon\t1\t300\t.\t+\t.\tgene_id "ENSG3.1"; gene_type "protein_coding"; gene_name "mt-A";
chr2\tx\ttranscript\t9001\t9100\t.\t-\t.\tgene_id "ENSG4.1"; gene_type "lncRNA"; gene_name "Noise";
chr2\tx\texon\t9001\t9100\t.\t-\t.\tgene_id "ENSG4.1"; gene_type "lncRNA"; gene_name "Noise";
"""


@pytest.fixture
def gtf(tmp_path):
    path = tmp_path / "toy.gtf"
    path.write_text(GTF)
    return path


@pytest.fixture
def vocabulary(gtf):
    return reference.build_vocabulary(reference.read_gtf(gtf, ["protein_coding"]), {"Plus"})


def test_gtf_is_read_as_worked_out_by_hand(vocabulary):
    table = vocabulary.set_index("gene_id")
    assert list(vocabulary["gene_id"]) == ["ENSG2", "ENSG1", "ENSG3"]  # the TF first, then by id
    assert table.loc["ENSG2", "tss"] == "10000,10050"  # a TSS shared by transcripts counts once
    assert table.loc["ENSG1", "tss"] == "4999"  # on the minus strand, the last base
    assert table.loc["ENSG2", "length"] == 250  # 10,001-10,150 and 11,901-12,000
    assert list(table["n_tss"]) == [2, 1, 1]
    assert list(table["is_tf"]) == [True, False, False]
    assert list(table["is_mt"]) == [False, False, True]


def test_windows_follow_the_strand(vocabulary):
    windows = reference.make_promoter_windows(vocabulary)
    bounds = {
        gene: list(w[["start", "end"]].to_numpy().tolist()) for gene, w in windows.groupby("gene")
    }
    assert bounds[0] == [[8500, 10500], [8550, 10550]]  # -1,500 to +500 of 10,000 and 10,050
    assert bounds[1] == [[4500, 6500]]  # upstream of a gene on the minus strand lies right
    assert bounds[2] == [[0, 500]]  # cut at the chromosome's start


def test_bed_gives_one_gene_a_symbol(tmp_path):
    path = tmp_path / "genes.bed"
    path.write_text(
        "chr1\t100\t900\tA\t-\nchr1\t200\t900\tA\t-\nchr1\t100\t950\tA\t-\nchr9\t5\t6\tA\t+\n"
    )
    genes = reference.read_bed(path)
    assert len(genes) == 1
    assert genes.loc[0, "tss"] == [899, 949]
    assert genes.loc[0, "length"] == 850


def test_measured_restricts_the_vocabulary(gtf):
    genes = reference.read_gtf(gtf, ["protein_coding"])
    table = reference.build_vocabulary(genes, {"Plus"}, {"Plus", "ENSG1"})
    assert list(table["gene_id"]) == ["ENSG2", "ENSG1"]
    words = (
        r"no genes in common between the samples \(such as PLUS, X\) and reference.annotation "
        r"\(such as Minus, Plus, mt-A\)"
    )
    with pytest.raises(InputError, match=words):
        reference.build_vocabulary(genes, {"Plus"}, {"PLUS", "X"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no transcript or exon"),
        ("chr1\tx\texon\t1\t2\t.\t+\t.\tfoo;\n", "no gene_id"),
        (GTF.replace("protein_coding", "rRNA"), "biotypes"),
    ],
)
def test_bad_gtf_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "bad.gtf"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        reference.read_gtf(path, ["protein_coding"])
    assert str(path) in str(caught.value)


def test_foreign_tf_list_is_refused(gtf):
    with pytest.raises(InputError, match="same species"):
        reference.build_vocabulary(reference.read_gtf(gtf, ["protein_coding"]), {"ZNF8"})


def test_union_of_nested_and_touching_exons():
    exons = pd.DataFrame(
        {"gene_id": ["a"] * 4 + ["b"], "start": [1, 3, 11, 21, 5], "end": [10, 5, 20, 30, 5]}
    )
    assert reference.compute_union_lengths(exons).to_dict() == {"a": 30, "b": 1}


REFSEQ = """\
NC_000067.7\tx\tgene\t101\t900\t.\t+\t.\tgene_id "Tbx6"; gene "Tbx6"; gene_biotype "protein_coding";
NC_000067.7\tx\ttranscript\t101\t900\t.\t+\t.\tgene_id "Tbx6"; gene "Tbx6"; transcript_biotype "mRNA";
NC_000067.7\tx\texon\t101\t900\t.\t+\t.\tgene_id "Tbx6"; gene "Tbx6"; transcript_biotype "mRNA";
NC_000067.7\tx\tgene\t101\t900\t.\t+\t.\tgene_id "Gm1"; gene "Gm1"; gene_biotype "lncRNA";
NC_000067.7\tx\ttranscript\t101\t900\t.\t+\t.\tgene_id "Gm1"; gene "Gm1"; transcript_biotype "lnc_RNA";
NC_000067.7\tx\texon\t101\t900\t.\t+\t.\tgene_id "Gm1"; gene "Gm1"; transcript_biotype "lnc_RNA";
"""


def test_refseq_tells_types_on_the_genes_lines_and_names_chromosomes_by_accession(tmp_path):
    (tmp_path / "r.gtf").write_text(REFSEQ)
    genes = reference.read_gtf(tmp_path / "r.gtf", ["protein_coding"])
    assert genes[["symbol", "chrom", "length"]].values.tolist() == [["Tbx6", "chr1", 800]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1", "chr1"), ("chr1", "chr1"), ("X", "chrX"), ("MT", "chrM"), ("chrMT", "chrM"),
        ("MtDNA", "chrM"), ("mitochondrion_genome", "chrM"), ("Mt", "chrM"), ("Mito", "chrM"),
        ("2L", "chr2L"), ("XVI", "chrXVI"), ("NC_000001.11", "chr1"), ("NC_000087.8", "chrY"),
        ("NC_012920.1", "chrM"), ("NC_000066.1", "NC_000066.1"), ("GL456210.1", "GL456210.1"),
    ],
)  # fmt: skip
def test_chromosomes_go_by_ucscs_names(name, expected):
    assert to_ucsc_name(name) == expected


def exons_alone(attributes):
    """Two transcripts of one gene and one of another, as exon and CDS lines."""
    rows = [
        ("exon", 101, 200, "+", "A", "t1"), ("exon", 301, 400, "+", "A", "t1"),
        ("CDS", 151, 200, "+", "A", "t1"), ("exon", 151, 400, "+", "A", "t2"),
        ("exon", 901, 950, "-", "B", "t3"), ("exon", 981, 990, "-", "B", "t3"),
    ]  # fmt: skip
    return "".join(
        f"chr1\tx\t{feature}\t{start}\t{end}\t.\t{strand}\t.\t{attributes.format(g=g, t=t)}\n"
        for feature, start, end, strand, g, t in rows
    )


def test_exons_alone_give_transcripts_and_their_tss(tmp_path, caplog):
    path = tmp_path / "igenomes.gtf"
    path.write_text(exons_alone('gene_id "{g}"; transcript_id "{t}";'))
    with caplog.at_level("INFO", logger="scdyn"):
        genes = reference.read_gtf(path, ["protein_coding"]).set_index("gene_id")
    assert genes["tss"].to_dict() == {"A": [100, 150], "B": [989]}
    assert genes["length"].to_dict() == {"A": 300, "B": 60}
    assert "has no biotypes; keeping all genes" in caplog.text
    path.write_text(exons_alone('gene_id "{g}";'))
    genes = reference.read_gtf(path, ["protein_coding"]).set_index("gene_id")
    assert genes["tss"].to_dict() == {"A": [100], "B": [989]}


def test_a_number_sign_within_a_line_is_no_comment(tmp_path):
    path = tmp_path / "a.gtf"
    text = exons_alone(
        'gene_id "{g}"; description "clone #12"; transcript_id "{t}"; gene_name "#{g}";'
    )
    lines = text.splitlines(keepends=True)
    path.write_text("#!x\n" + lines[0] + "# between\ttwo\tlines\n" + "".join(lines[1:]))
    genes = reference.read_gtf(path, ["protein_coding"])
    assert genes["symbol"].tolist() == ["#A", "#B"]
    assert genes["tss"].tolist() == [[100, 150], [989]]
    bed = tmp_path / "a.bed"
    bed.write_text('#chrom\tstart\ntrack name="x"\nchr1\t5\t99\tA#1\t+\n# last\n')
    assert reference.read_bed(bed)["symbol"].tolist() == ["A#1"]


def test_numbers_of_stringtie_are_no_versions(tmp_path):
    path = tmp_path / "s.gtf"
    path.write_text("".join(
        f'chr1\tx\t{f}\t{100 * i}\t{100 * i + 9}\t.\t+\t.\tgene_id "MSTRG.{i}"; transcript_id "t{i}";\n'
        for i in range(1, 4) for f in ("transcript", "exon")
    ))  # fmt: skip
    genes = reference.read_gtf(path, ["protein_coding"])
    assert genes["gene_id"].tolist() == ["MSTRG.1", "MSTRG.2", "MSTRG.3"]


def test_genes_called_like_a_missing_value_are_genes(tmp_path, gtf):
    text = GTF.replace('"Plus"', '"nan"').replace('"Minus"', '"NA"').replace('"mt-A"', '""')
    gtf.write_text(text)
    genes = reference.read_gtf(gtf, ["protein_coding"])
    table = reference.build_vocabulary(genes, {"nan"})
    write_table(tmp_path / "genes.tsv", table)
    read = reference.read_vocabulary(tmp_path / "genes.tsv")
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert read["symbol"].tolist() == ["nan", "NA", "ENSG3"]  # an empty name is none
    assert read["is_tf"].tolist() == [True, False, False]
    bed = tmp_path / "genes.bed"
    bed.write_text("chr1\t100\t900\tnan\t-\nchr1\t2000\t2900\tNA\t+\n")
    assert reference.read_bed(bed)["symbol"].tolist() == ["NA", "nan"]


def test_a_gene_without_a_name_is_not_the_gene_called_nan():
    genes = pd.DataFrame({"gene_id": ["G1", "G2"], "symbol": ["nan", "NA"]})
    var = pd.DataFrame({"symbol": ["NA", np.nan, "nan"]}, index=["a", "b", "c"])
    found = reference.find_genes(list_name_columns(var), genes)
    assert found.tolist() == [1, -1, 0]


@pytest.mark.parametrize(
    ("of_x", "of_y"),
    [("ENSG9.5", "ENSG9.5_PAR_Y"), ("ENSG9", "ENSG9_PAR_Y"), ("ENSG9.5_4", "ENSG9.5_4_PAR_Y")],
)
def test_a_gene_of_both_sex_chromosomes_is_one_on_the_first(tmp_path, of_x, of_y):
    rows = [
        f'{chrom}\tx\t{feature}\t101\t900\t.\t+\t.\tgene_id "{name}"; gene_name "Par";\n'
        for chrom, name in (("chrX", of_x), ("chrY", of_y))
        for feature in ("transcript", "exon")
    ]
    (tmp_path / "par.gtf").write_text("".join(rows))
    genes = reference.read_gtf(tmp_path / "par.gtf", [])
    assert genes[["gene_id", "chrom", "length"]].values.tolist() == [["ENSG9", "chrX", 800]]


def test_a_gene_of_a_chromosome_and_a_scaffold_is_on_the_chromosome(tmp_path):
    """UCSC's refGene has one id for all places of a gene, scaffolds among them."""
    scaffold = "chr1_KI270706v1_random"
    rows = [
        f'{chrom}\tx\t{feature}\t{start}\t900\t.\t+\t.\tgene_id "A";\n'
        for chrom, start in ((scaffold, 11), ("1", 101), ("X", 201))
        for feature in ("transcript", "exon")
    ]
    (tmp_path / "a.gtf").write_text("".join(rows))
    genes = reference.read_gtf(tmp_path / "a.gtf", [])
    assert genes[["chrom", "tss"]].values.tolist() == [["chr1", [100]]]
    (tmp_path / "a.gtf").write_text("".join(rows[:2]))
    assert reference.read_gtf(tmp_path / "a.gtf", [])["chrom"].tolist() == [scaffold]
    bed = tmp_path / "a.bed"
    bed.write_text(f"{scaffold}\t10\t990\tA\t-\nchr1\t100\t900\tA\t+\n")
    assert reference.read_bed(bed)[["chrom", "strand"]].values.tolist() == [["chr1", "+"]]


def test_tfs_are_found_by_id_with_any_version(gtf):
    genes = reference.read_gtf(gtf, ["protein_coding"])
    table = reference.build_vocabulary(genes, {"ENSG2.7", "Minus"})
    assert table["symbol"][table["is_tf"]].tolist() == ["Minus", "Plus"]


@pytest.mark.parametrize("header", ["", "chrom\tstart\tend\tsymbol\tscore\tstrand\n", "#x\n"])
@pytest.mark.parametrize("more", ["", "\t100\t900\t0\t2\t10,20\t0,780"])
def test_bed_of_six_columns_and_more_and_with_a_header(tmp_path, header, more):
    path = tmp_path / "genes.bed"
    path.write_text(f"{header}chr1\t100\t900\tA\t0\t-{more}\nchr1\t2000\t2900\tB\t0\t+{more}\n")
    genes = reference.read_bed(path)
    assert genes[["symbol", "strand", "length"]].values.tolist() == [
        ["A", "-", 800],
        ["B", "+", 900],
    ]
    assert genes["tss"].tolist() == [[899], [2000]]


@pytest.mark.parametrize("name", ["a.gtf", "a.GTF", "a.gtf.bz2", "a.gtf.bgz"])
def test_the_name_tells_the_annotations_format(tmp_path, name):
    text = GTF.encode()
    packed = bz2.compress(text) if name.endswith("bz2") else gzip.compress(text)
    (tmp_path / name).write_bytes(text if name.lower().endswith("gtf") else packed)
    assert len(reference.read_annotation(tmp_path / name, ["protein_coding"])) == 3
    (tmp_path / "a.bed.bz2").write_bytes(bz2.compress(b"chr1\t100\t900\tA\t-\n"))
    assert len(reference.read_annotation(tmp_path / "a.bed.bz2", [])) == 1


@pytest.mark.parametrize(
    "text",
    [
        "A\nB.1\n",
        "\ufeffA\r\nB.1\r\n",
        "# C and D were removed\nA # as C\n\nB.1\n#D\n",
        '"x"\n"A"\n"B.1"\n',
        '"","x"\n"1","A"\n"2","B.1"\n',
        '"x"\n"1" "A"\n"2" "B.1"\n',
        "Symbol,Family\nA,C\nB.1,C\n",
        "Species\tSymbol\tFamily\nMus\tA\tC\nMus\tB.1\tC\n",
    ],
)
def test_a_tf_list_has_one_name_a_line_or_a_column_of_them(tmp_path, text):
    path = tmp_path / "tfs.txt"
    path.write_text(text, encoding="utf-8")
    assert reference.read_tfs(path, ["A", "B.1", "C", "D"]) == {"A", "B.1"}


def test_a_tf_list_of_comments_is_empty_and_a_first_name_without_genes_is_kept(tmp_path):
    path = tmp_path / "tfs.txt"
    path.write_text("# A\n")
    with pytest.raises(InputError, match="the TF list is empty"):
        reference.read_tfs(path, ["A"])
    path.write_text("Z1\nZ2\n")
    assert reference.read_tfs(path, ["A"]) == reference.read_tfs(path) == {"Z1", "Z2"}


def test_names_of_a_tf_list_that_are_no_genes_are_told(gtf, caplog):
    genes = reference.read_gtf(gtf, ["protein_coding"])
    with caplog.at_level("INFO", logger="scdyn"):
        reference.build_vocabulary(genes, {"Plus", "ENSG1.9", "MINUS", "Other"}, {"Plus"})
    assert "2 of the 4 names in the TF list are not in the annotation, such as MINUS" in caplog.text
    assert "1 names in the TF list differ" in caplog.text and "MINUS (Minus)" in caplog.text
