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

NAME = "ultrasound nerve segmentation"


def check_installed() -> None:
    """Refuse where the packages that `write` needs are absent.

    Raises:
        ValueError: what to install.
    """
    with refusing("--dicom-seg needs: pip install -r requirements/dicom.txt", ImportError):
        import highdicom  # noqa: F401


def write(path: Path, masks: list[np.ndarray], out: Path) -> None:
    """Write the DICOM Segmentation of a DICOM file.

    Args:
        masks: List of uint8 arrays `(height, width)`, 0 and 1, one for each frame from the
            first on.
        out: File to write; its folder is made if absent.

    Raises:
        ValueError: the file lacks what a segmentation must refer to.

    Source: https://dicom.nema.org/medical/dicom/current/output/html/part03.html#sect_A.51
    """
    import highdicom
    import pydicom
    from pydicom.sr.codedict import codes

    description = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label="nerve",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Nerve,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=NAME, family=codes.DCM.ArtificialIntelligence, version="1"
        ),
    )
    # of damaged files pydicom may raise anything
    with refusing(f"{path}: no DICOM Segmentation of it", Exception):
        dataset = pydicom.dcmread(path)
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        sop_class = dataset.SOPClassUID
        if "PixelSpacing" in dataset:  # highdicom wants a slice's thickness beside it
            del dataset.PixelSpacing
        if count > 1:  # shown to highdicom as a still; see add_frames
            dataset.SOPClassUID = pydicom.uid.UltrasoundImageStorage
            del dataset.NumberOfFrames
        segmentation = highdicom.seg.Segmentation(
            source_images=[dataset],
            pixel_array=masks[0][np.newaxis],
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
    if count > 1:
        add_frames(segmentation, masks, count)
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


def add_frames(segmentation, masks: list[np.ndarray], count: int) -> None:
    """Make a segmentation of a cine loop's first frame one of all its frames.

    highdicom writes several frames only where they lie somewhere in the patient, which
    ultrasound does not know: here each frame refers to that of its number.

    Args:
        masks: As of `write`; frames without a mask are empty.
    """
    from pydicom.dataset import Dataset
    from pydicom.pixels.utils import pack_bits
    from pydicom.tag import Tag

    pixels = np.zeros((count, *masks[0].shape), np.uint8)
    pixels[: len(masks)] = masks  # of a run that was stopped, the rest is empty
    segmentation.PixelData = pack_bits(pixels)
    segmentation.NumberOfFrames = count
    index = Dataset()
    index.DimensionOrganizationUID = segmentation.DimensionIndexSequence[
        0
    ].DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("InStackPositionNumber")
    index.FunctionalGroupPointer = Tag("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame"
    segmentation.DimensionIndexSequence.append(index)
    first = segmentation.PerFrameFunctionalGroupsSequence[0]
    groups = []
    for number in range(1, count + 1):
        group = copy.deepcopy(first)
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedFrameNumber = number
        content = group.FrameContentSequence[0]
        content.StackID, content.InStackPositionNumber = "1", number
        content.DimensionIndexValues = [1, number]
        groups.append(group)
    segmentation.PerFrameFunctionalGroupsSequence = groups
