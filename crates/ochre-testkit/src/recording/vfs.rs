//! An SQLite VFS that passes everything on to the platform's own and tells the recorder.
//!
//! A shim in SQLite's sense: its file objects are followed in memory by those of the real VFS. Memory
//! mapping is left out (`iVersion` 2), so that every read and write goes through here.
#![expect(unsafe_code, reason = "SQLite's VFS is a C interface; every callback only forwards what SQLite hands it")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rusqlite::ffi;

use super::{Event, Recorder};

fn registry() -> &'static Mutex<HashMap<String, Arc<Recorder>>> {
    static REGISTRY: OnceLock<Mutex<HashMap<String, Arc<Recorder>>>> = OnceLock::new();
    REGISTRY.get_or_init(Mutex::default)
}

pub(super) fn registered(name: &str) -> Option<Arc<Recorder>> {
    registry().lock().get(name).cloned()
}

/// A file as SQLite sees it; the real one follows in the same allocation.
#[repr(C)]
struct ShimFile {
    base: ffi::sqlite3_file,
    /// Absent for files that are not recorded.
    tracked: *mut Tracked,
    real: *mut ffi::sqlite3_file,
}

struct Tracked {
    path: PathBuf,
    recorder: Arc<Recorder>,
}

/// Registers a VFS of this name; it stays for the life of the process, as its recorder does.
pub(super) fn register(name: &str, recorder: Arc<Recorder>) {
    registry().lock().insert(name.to_owned(), recorder);
    let c_name = CString::new(name).expect("no NUL in a name made here");
    // SAFETY: the platform's VFS lives as long as the process; the copy only changes what is ours, and is
    // leaked, as SQLite requires of a registered VFS.
    unsafe {
        let real = ffi::sqlite3_vfs_find(ptr::null());
        assert!(!real.is_null(), "SQLite has a default VFS");
        let mut shim = ptr::read(real);
        shim.pNext = ptr::null_mut();
        shim.zName = c_name.into_raw();
        shim.pAppData = real.cast::<c_void>();
        shim.szOsFile = c_int::try_from(size_of::<ShimFile>()).expect("a small struct") + (*real).szOsFile;
        shim.xOpen = Some(open);
        shim.xDelete = Some(delete);
        let shim = Box::leak(Box::new(shim));
        assert_eq!(ffi::sqlite3_vfs_register(shim, 0), ffi::SQLITE_OK);
    }
}

fn methods() -> &'static ffi::sqlite3_io_methods {
    static METHODS: OnceLock<ffi::sqlite3_io_methods> = OnceLock::new();
    METHODS.get_or_init(|| ffi::sqlite3_io_methods {
        iVersion: 2,
        xClose: Some(close),
        xRead: Some(read),
        xWrite: Some(write),
        xTruncate: Some(truncate),
        xSync: Some(sync),
        xFileSize: Some(file_size),
        xLock: Some(lock),
        xUnlock: Some(unlock),
        xCheckReservedLock: Some(check_reserved_lock),
        xFileControl: Some(file_control),
        xSectorSize: Some(sector_size),
        xDeviceCharacteristics: Some(device_characteristics),
        xShmMap: Some(shm_map),
        xShmLock: Some(shm_lock),
        xShmBarrier: Some(shm_barrier),
        xShmUnmap: Some(shm_unmap),
        xFetch: None,
        xUnfetch: None,
    })
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs, name: ffi::sqlite3_filename, file: *mut ffi::sqlite3_file, flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands us our own VFS and `szOsFile` bytes for the file; the real file's bytes follow
    // the shim's. The name is a C string or null.
    unsafe {
        let real_vfs = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let shim = file.cast::<ShimFile>();
        (*shim).base.pMethods = ptr::null();
        (*shim).real = shim.add(1).cast::<ffi::sqlite3_file>();
        (*shim).tracked = ptr::null_mut();
        let result = (*real_vfs).xOpen.expect("a VFS opens files")(real_vfs, name, (*shim).real, flags, out_flags);
        if (*(*shim).real).pMethods.is_null() {
            return result;
        }
        (*shim).base.pMethods = methods();
        let is_recorded =
            flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL) != 0;
        if is_recorded && !name.is_null() {
            let shim_name = CStr::from_ptr((*vfs).zName).to_string_lossy().into_owned();
            if let Some(recorder) = registered(&shim_name) {
                let path = PathBuf::from(std::ffi::OsStr::from_bytes(CStr::from_ptr(name).to_bytes()));
                (*shim).tracked = Box::into_raw(Box::new(Tracked { path, recorder }));
            }
        }
        result
    }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let real_vfs = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let result = (*real_vfs).xDelete.expect("a VFS deletes files")(real_vfs, name, sync_dir);
        let shim_name = CStr::from_ptr((*vfs).zName).to_string_lossy().into_owned();
        if let (ffi::SQLITE_OK, Some(recorder)) = (result, registered(&shim_name)) {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(CStr::from_ptr(name).to_bytes()));
            recorder.record(Event::Remove(path));
        }
        result
    }
}

/// The real file behind a shim, and what is recorded of it.
///
/// # Safety
/// `file` is one that `open` filled in.
unsafe fn parts<'a>(
    file: *mut ffi::sqlite3_file,
) -> (*mut ffi::sqlite3_file, &'a ffi::sqlite3_io_methods, Option<&'a Tracked>) {
    // SAFETY: `open` set all three fields, and they live until `close`.
    unsafe {
        let shim = file.cast::<ShimFile>();
        let real = (*shim).real;
        (real, &*(*real).pMethods, (*shim).tracked.as_ref())
    }
}

/// The error to answer if this operation is made to fail.
fn failing(tracked: Option<&Tracked>, error: c_int) -> Option<c_int> {
    let full = tracked?.recorder.fails()?;
    Some(if full { ffi::SQLITE_FULL } else { error })
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: a file of `open`'s; the box was made there and is not used after this.
    unsafe {
        let (real, methods, _) = parts(file);
        let result = methods.xClose.expect("every file closes")(real);
        let shim = file.cast::<ShimFile>();
        if !(*shim).tracked.is_null() {
            drop(Box::from_raw((*shim).tracked));
            (*shim).tracked = ptr::null_mut();
        }
        result
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, offset: i64) -> c_int {
    // SAFETY: a file of `open`'s, and SQLite's promise that `count` bytes can be read.
    unsafe {
        let (real, methods, tracked) = parts(file);
        if let Some(error) = failing(tracked, ffi::SQLITE_IOERR_WRITE) {
            return error;
        }
        let result = methods.xWrite.expect("every file is written")(real, bytes, count, offset);
        if let (ffi::SQLITE_OK, Some(tracked)) = (result, tracked) {
            let len = usize::try_from(count).expect("a length");
            let written = std::slice::from_raw_parts(bytes.cast::<u8>(), len).to_vec();
            tracked.recorder.record(Event::Write(tracked.path.clone(), offset.cast_unsigned(), written));
        }
        result
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: a file of `open`'s.
    unsafe {
        let (real, methods, tracked) = parts(file);
        let result = methods.xTruncate.expect("every file is cut")(real, size);
        if let (ffi::SQLITE_OK, Some(tracked)) = (result, tracked) {
            tracked.recorder.record(Event::SetLen(tracked.path.clone(), size.cast_unsigned()));
        }
        result
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: a file of `open`'s.
    unsafe {
        let (real, methods, tracked) = parts(file);
        if let Some(error) = failing(tracked, ffi::SQLITE_IOERR_FSYNC) {
            return error;
        }
        match tracked {
            // The recorder is what counts as durable; a real sync would only cost time.
            Some(tracked) => {
                tracked.recorder.record(Event::Sync(tracked.path.clone()));
                ffi::SQLITE_OK
            }
            None => methods.xSync.expect("every file is synced")(real, flags),
        }
    }
}

/// Callbacks that only forward.
macro_rules! forward {
    ($($name:ident => $method:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($argument: $type),*) -> $result {
            // SAFETY: a file of `open`'s; the arguments are SQLite's own, passed on unchanged.
            unsafe {
                let (real, methods, _) = parts(file);
                methods.$method.expect("the platform's files have this method")(real, $($argument),*)
            }
        }
    )*};
}

forward! {
    read => xRead(buffer: *mut c_void, count: c_int, offset: i64) -> c_int;
    file_size => xFileSize(size: *mut i64) -> c_int;
    lock => xLock(level: c_int) -> c_int;
    unlock => xUnlock(level: c_int) -> c_int;
    check_reserved_lock => xCheckReservedLock(result: *mut c_int) -> c_int;
    file_control => xFileControl(operation: c_int, argument: *mut c_void) -> c_int;
    sector_size => xSectorSize() -> c_int;
    device_characteristics => xDeviceCharacteristics() -> c_int;
    shm_map => xShmMap(page: c_int, size: c_int, extend: c_int, memory: *mut *mut c_void) -> c_int;
    shm_lock => xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier => xShmBarrier() -> ();
    shm_unmap => xShmUnmap(delete: c_int) -> c_int;
}
