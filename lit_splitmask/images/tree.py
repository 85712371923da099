"""The content of a folder: its images, its label files, and the files that are left out, in one walk."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from lit_splitmask.errors import UserError
from lit_splitmask.images import dicom
from lit_splitmask.images.contents import is_heic
from lit_splitmask.images.decode import IMAGE_EXTENSIONS

IGNORED_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders that archives and operating systems add."""

EXAMPLES = 3

HEIC = "HEIC (convert to JPEG, for example with `magick mogrify -format jpg *.HEIC`)"
RAW = "camera RAW (convert to JPEG or TIFF)"
DICOM = "DICOM (pip install 'lit-splitmask[medical]' to read it)"
OTHER_IMAGES = "images of other formats (convert to PNG)"
NO_EXTENSION = "images without a known extension (add it, such as .jpg)"
NOT_A_FILE = "pipes, sockets or devices"
READ_ALREADY = "folders that are already read under another name (links)"

_EXTENSIONS = {
    HEIC: ".heic .heif .hif .heics",
    RAW: ".cr2 .cr3 .crw .nef .arw .dng .orf .rw2 .raf .pef .srw .x3f",
    DICOM: " ".join(dicom.EXTENSIONS),
    OTHER_IMAGES: ".psd .xcf .jxl .pcx .ico .exr .hdr .fits .fit .apng .icns .sgi .svs .ndpi .mrxs .czi .lif .nd2",
    "PDF": ".pdf",
    "vector graphics": ".svg .eps .ai",
    "medical volumes (save their slices as images)": ".nii .mha .mhd .nrrd",
    "videos (extract frames)": ".mp4 .mov .avi .mkv .webm .m4v .3gp .mpg .mpeg .wmv",
    "archives (unpack them)": ".zip .tar .gz .tgz .rar .7z .bz2 .xz .zst",
    "arrays or records (save as images)": ".npy .npz .h5 .hdf5 .tfrecord .tfrecords .parquet .lmdb .mdb",
}
_KIND_OF = {extension: kind for kind, extensions in _EXTENSIONS.items() for extension in extensions.split()}
_PHOTOS = (HEIC, RAW, DICOM, OTHER_IMAGES, NO_EXTENSION)

_DICOM_CATALOGUE = "DICOMDIR"
"""Name of the list of files on a DICOM medium, which is DICOM itself."""

_LABEL_EXTENSIONS = frozenset({".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".mat"})

_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_HEAD = 132  # bytes that tell what a file is; DICOM's mark comes last


@dataclass
class Tree:
    """The files of a folder, by what they are; paths are POSIX paths relative to the root.

    Attributes:
        root: The folder.
        images: Sorted image files, hidden ones left out, links followed, each folder once.
        label_files: Sorted files that may hold annotations: JSON, XML, text, CSV, YAML, MATLAB.
        left_out: Files that look like data but are not read: kind -> sorted files.
    """

    root: Path
    images: list[str] = field(default_factory=list)
    label_files: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> "Tree":
        """Walks through a folder.

        Raises:
            UserError: The folder does not exist, is a file, or one in it cannot be read.
        """
        if root.is_file():
            raise UserError(f"The data folder {root} is a file. Pass the folder that holds the images.")
        if not root.is_dir():
            raise UserError(f"The data folder {root} does not exist (from {Path.cwd()}). Check the path.")
        tree = cls(root)
        seen: set[tuple[int, int]] = set()
        waiting = [(os.fspath(root), "")]
        while waiting:
            folder, prefix = waiting.pop()
            try:
                status = os.stat(folder)
                key = status.st_dev, status.st_ino
                if key in seen:  # a link that leads back up, or to a folder beside it
                    tree._leave_out(READ_ALREADY, prefix.rstrip("/"))
                    continue
                seen.add(key)
                inside = tree._read_folder(folder, prefix)
            except OSError as error:
                raise UserError(
                    f"The folder {folder} cannot be read ({error.strerror}): its images would be missing. Give yourself "
                    "permission to read it, or move it away."
                ) from None
            waiting += [(f"{folder}/{name}", f"{prefix}{name}/") for name in sorted(inside, reverse=True)]
        tree.images.sort()
        for files in (tree.label_files, *tree.left_out.values()):
            files.sort()
        return tree

    def _read_folder(self, folder: str, prefix: str) -> list[str]:
        """Adds the files of one folder; returns the names of those in it."""
        images, folders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                if not entry.is_file(follow_symlinks=False) and _is_folder(entry):
                    if name not in IGNORED_FOLDERS:
                        folders.append(name)
                    continue
                dot = name.rfind(".")
                extension = name[dot:].lower() if dot > 0 else ""
                if _is_image(extension) and _can_be_opened(entry):
                    images.append(prefix + name)
                else:
                    self._add_other(entry, extension, prefix + name)
        images.sort()
        self.images += images
        return folders

    def _add_other(self, entry: os.DirEntry[str], extension: str, file: str) -> None:
        """Adds a file that is not an image, or not one that can be read."""
        if not _can_be_opened(entry):
            if _is_image(extension):
                self._leave_out(NOT_A_FILE, file)
        elif extension in _LABEL_EXTENSIONS:
            self.label_files.append(file)
        else:
            kind = _KIND_OF.get(extension) or _kind_by_content(entry.path)
            if kind == DICOM and dicom.has_pydicom():  # by content: many such files have no extension
                if entry.name != _DICOM_CATALOGUE:
                    self.images.append(file)
            elif kind is not None:
                self._leave_out(_KIND_OF[".nii"] if file.lower().endswith(".nii.gz") else kind, file)

    def _leave_out(self, kind: str, file: str) -> None:
        self.left_out.setdefault(kind, []).append(file)

    def describe_left_out(self) -> list[str]:
        """One line for each kind of file that is left out, the most frequent first."""
        kinds = sorted(self.left_out.items(), key=lambda item: (-len(item[1]), item[0]))
        return [f"{len(files):,} {kind}, such as {', '.join(files[:EXAMPLES])}" for kind, files in kinds]

    def unread_images(self) -> dict[str, str]:
        """The images of kinds that are not read, and their kind."""
        return {file: kind for kind in _PHOTOS for file in self.left_out.get(kind, [])}


def list_images(root: Path) -> list[str]:
    """Sorted relative paths of all image files in a folder, at any depth.

    Raises:
        UserError: The folder does not exist, is a file, holds no images, or one in it cannot be read.
    """
    tree = Tree.read(root)
    check_has_images(tree)
    return tree.images


def check_has_images(tree: Tree) -> None:
    """Checks that there is at least one image.

    Raises:
        UserError: There is none; says what there is instead.
    """
    if tree.images:
        return
    known = " ".join(sorted(IMAGE_EXTENSIONS))
    instead = f" It holds {'; '.join(tree.describe_left_out())}." if tree.left_out else ""
    raise UserError(
        f"The data folder {tree.root} holds no images, at any depth.{instead} Files with these extensions are read: {known}."
    )


def _is_image(extension: str) -> bool:
    return extension in IMAGE_EXTENSIONS and (extension not in dicom.EXTENSIONS or dicom.has_pydicom())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _can_be_opened(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one or to nothing: not a pipe, on which reading would wait forever."""
    if entry.is_file(follow_symlinks=False):
        return True
    try:
        return stat.S_ISREG(os.stat(entry.path).st_mode)
    except OSError:
        return entry.is_symlink()


def _kind_by_content(path: str) -> str | None:
    """The kind of an image whose extension does not say that it is one; None for other files."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if is_heic(head):
        return HEIC
    if dicom.is_dicom(head):
        return DICOM
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_bmp = head[:2] == b"BM" and head[6:10] == bytes(4)  # text may begin with BM too
    is_avif = head[4:12] in (b"ftypavif", b"ftypavis")
    return NO_EXTENSION if head.startswith(_MAGIC) or is_webp or is_bmp or is_avif else None
