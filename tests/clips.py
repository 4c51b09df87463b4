"""Frames written as videos and DICOM files, for tests.

from clips import sweep, write_dicom, write_video
"""

import io

import cv2
import numpy as np
import pydicom
from conftest import draw_frame
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

HEIGHT, WIDTH = 64, 80


def sweep(count=6):
    """Return frames with a nerve each, uint8 `(count, HEIGHT, WIDTH)`, and their masks."""
    pairs = [draw_frame(2, number, True, 3, HEIGHT, WIDTH) for number in range(count)]
    return tuple(np.stack(arrays) for arrays in zip(*pairs, strict=True))


def write_video(path, frames, code="MJPG"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 20, (WIDTH, HEIGHT))
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()


def write_dicom(path, frames, **more):
    """Write frames as an ultrasound picture or cine loop; `more` changes attributes."""
    multi = len(frames) > 1
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = (
        pydicom.uid.UltrasoundMultiFrameImageStorage
        if multi
        else pydicom.uid.UltrasoundImageStorage
    )
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for name in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, name, pydicom.uid.generate_uid())
    dataset.PatientID, dataset.PatientName, dataset.StudyID = "1", "Phantom", "1"
    for name in ("PatientBirthDate", "PatientSex", "AccessionNumber"):
        setattr(dataset, name, "")
    dataset.ReferringPhysicianName, dataset.StudyDate = "", "20200101"
    dataset.StudyTime, dataset.Modality = "120000", "US"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = frames.shape[1:3]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * frames.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    if multi:
        dataset.NumberOfFrames, dataset.CineRate = len(frames), 15
    dataset.PixelData = frames.tobytes()
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def encode(frame, kind):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


def write_compressed(path, parts, frames, syntax=JPEGBaseline8Bit, table=True, **more):
    """Write encoded frames as a DICOM file of a syntax."""
    dataset = write_dicom(path, frames, **more)
    dataset.PixelData = encapsulate(parts, has_bot=table)
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)
