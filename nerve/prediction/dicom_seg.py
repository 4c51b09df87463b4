"""Masks as a DICOM Segmentation that viewers show over the frames they belong to.

Needs pydicom and highdicom: pip install -r requirements/dicom.txt
"""

import copy
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from nerve.command import refusing
from nerve.files import atomic
from nerve.frames.dicom import read_header

NAME = "ultrasound nerve segmentation"
# which files may lack, and segmentations may leave empty: of type 2
MAY_LACK = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID")
MAY_LACK += ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")


def check_installed() -> None:
    """Refuse where the packages that `write` needs are absent."""
    with refusing("--dicom-seg needs: pip install -r requirements/dicom.txt", ImportError):
        import highdicom  # noqa: F401


def unpack(masks: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return masks, as `write` takes them, as uint8 `(count, height, width)`, 0 and 1."""
    bits = [np.unpackbits(mask, count=shape[0] * shape[1]) for mask in masks]
    return np.reshape(bits, (len(masks), *shape))


def segment(dataset, mask: np.ndarray):
    """Return highdicom's Segmentation of a still; its mask is (1, rows, columns)."""
    import highdicom
    from pydicom.sr.codedict import codes

    kind = highdicom.AlgorithmIdentificationSequence
    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="nerve",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Nerve,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=kind(NAME, codes.DCM.ArtificialIntelligence, "1"),
    )
    return highdicom.seg.Segmentation(
        source_images=[dataset],
        pixel_array=mask,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        series_instance_uid=highdicom.UID(),
        series_number=int(dataset.get("SeriesNumber", 0) or 0) + 1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions="1",
        device_serial_number="0",
        omit_empty_frames=False,
    )


def write(path: Path, masks: list[np.ndarray], out: Path) -> None:
    """Write the DICOM Segmentation of a DICOM file.

    Args:
        masks: Of each frame from the first on `np.packbits` of its mask: a long loop's take
            an eighth of the memory so. Of further frames the segmentation says nothing.
        out: File to write; its folder is made if absent.

    Raises:
        ValueError: the file lacks what a segmentation must refer to.

    Source: https://dicom.nema.org/medical/dicom/current/output/html/part03.html#sect_A.51
    """
    import pydicom

    # of damaged files pydicom may raise anything
    with refusing(f"{path}: no DICOM Segmentation of it", Exception):
        dataset, pixels = read_header(path)
        several = len(masks) > 1 or (pixels.stated or 1) > 1
        sop_class = dataset.SOPClassUID
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        for name in MAY_LACK:
            setattr(dataset, name, dataset.get(name, ""))
        if "PixelSpacing" in dataset:  # highdicom wants a slice's thickness beside it
            del dataset.PixelSpacing
        if several:  # shown to highdicom as a still; see add_frames
            dataset.NumberOfFrames = 1
            dataset.SOPClassUID = pydicom.uid.UltrasoundImageStorage
        first = unpack(masks[:1], (dataset.Rows, dataset.Columns))
        segmentation = segment(dataset, first)
    if several:
        add_frames(segmentation, masks)
        for sequence in references(segmentation):
            sequence[0].ReferencedSOPClassUID = sop_class
    buffer = io.BytesIO()
    segmentation.save_as(buffer)
    atomic.make_folder(out.parent)
    atomic.write_bytes(out, buffer.getvalue())


def references(segmentation) -> Iterator:
    """Yield each sequence of a segmentation that refers to its source."""
    yield segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    yield segmentation.SourceImageSequence
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        yield group.DerivationImageSequence[0].SourceImageSequence


def add_frames(segmentation, masks: list[np.ndarray]) -> None:
    """Make a segmentation of a cine loop's first frame one of all that have masks.

    highdicom writes several frames only where they lie somewhere in the patient, which
    ultrasound does not know: here each frame refers to that of its number.
    """
    from pydicom.dataset import Dataset
    from pydicom.pixels.utils import pack_bits
    from pydicom.tag import Tag

    shape, content = (segmentation.Rows, segmentation.Columns), bytearray()
    for start in range(0, len(masks), 8):  # of eight frames the bits fill whole bytes
        content += pack_bits(unpack(masks[start : start + 8], shape), pad=False)
    segmentation.PixelData = bytes(content) + b"\0" * (len(content) % 2)
    segmentation.NumberOfFrames = len(masks)
    index, dimensions = Dataset(), segmentation.DimensionIndexSequence
    index.DimensionOrganizationUID = dimensions[0].DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("InStackPositionNumber")
    index.FunctionalGroupPointer = Tag("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame"
    dimensions.append(index)
    first = segmentation.PerFrameFunctionalGroupsSequence[0]
    groups = [copy.deepcopy(first) for _ in masks]
    for number, group in enumerate(groups, 1):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = number
        content = group.FrameContentSequence[0]
        content.StackID, content.InStackPositionNumber = "1", number
        content.DimensionIndexValues = [1, number]
    segmentation.PerFrameFunctionalGroupsSequence = groups
