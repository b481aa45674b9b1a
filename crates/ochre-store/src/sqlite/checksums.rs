//! Page checksums: an SQLite VFS that puts a checksum into the reserved last bytes of every page of a database file
//! when it is written, and compares it when the page is read, so that damage is an error with a name and never an
//! answer.
//!
//! The idea is that of SQLite's own "checksum VFS" extension; the form is described in `docs/formats/database.md`.
//! Files without reserved bytes (written before there were checksums) are passed through until a vacuum gives them
//! some. Pages in the write-ahead log carry the log's own checksums, which SQLite compares when it opens the log.
//!
//! Invariants:
//! - A page read in a file that has checksums either matches its own or is reported as `SQLITE_IOERR_DATA`.
//! - A mapped page is compared when a connection first fetches it; what is copied is compared each time.
#![expect(unsafe_code, reason = "SQLite's VFS is a C interface; every callback forwards what SQLite hands it")]

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::{Mutex, OnceLock};

use rusqlite::{Connection, ffi};

/// Bytes of a page: SQLite's default, which nothing here changes.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes at the end of each page that SQLite leaves alone.
const RESERVED_BYTES: u8 = 8;
const SUM_AT: usize = PAGE_BYTES - RESERVED_BYTES as usize;
/// Behind the checksum of a page.
const MARK: [u8; 4] = *b"OCK1";
/// Where the header of a database says how many bytes of each page are reserved.
const RESERVED_AT: usize = 20;
/// SQLite never writes the page that holds this byte: its locks lie there.
const LOCK_BYTE: i64 = 0x4000_0000;
/// The operation of `sqlite3_file_control` that compares pages, see [`damaged_pages`].
const CONTROL_COMPARE: c_int = 0x0C5C_0001;
/// The operation that asks whether the file has checksums.
const CONTROL_HAS_CHECKSUMS: c_int = 0x0C5C_0002;

thread_local! {
    /// The page that was last found damaged by this thread.
    static DAMAGED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The page whose damage the last [`ffi::SQLITE_IOERR_DATA`] of this thread was about.
pub(crate) fn last_damaged_page() -> Option<u64> {
    DAMAGED.get()
}

fn checksum(page: &[u8], number: u64) -> [u8; 4] {
    let sum = crc32c::crc32c(&page[..SUM_AT]);
    // With its number, so that a page in another's place is found too.
    crc32c::crc32c_append(sum, &number.to_le_bytes()).to_le_bytes()
}

fn is_sound(page: &[u8], number: u64) -> bool {
    page[SUM_AT..SUM_AT + 4] == checksum(page, number) && page[SUM_AT + 4..] == MARK
}

fn sealed(page: &[u8], number: u64) -> [u8; PAGE_BYTES] {
    let mut copy = [0; PAGE_BYTES];
    copy.copy_from_slice(page);
    copy[SUM_AT..SUM_AT + 4].copy_from_slice(&checksum(page, number));
    copy[SUM_AT + 4..].copy_from_slice(&MARK);
    copy
}

/// The number of the page at this place, if exactly one lies there.
fn page_at(offset: i64, count: c_int) -> Option<u64> {
    let is_page = usize::try_from(count).is_ok_and(|count| count == PAGE_BYTES) && offset % PAGE_BYTES as i64 == 0;
    (is_page && offset != LOCK_BYTE).then(|| offset.cast_unsigned() / PAGE_BYTES as u64 + 1)
}

/// Whether a file has checksums, as far as it is known.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// It is empty; its first page will say.
    Unknown,
    Plain,
    Summed,
    /// Its header says something that no program writes.
    Foreign,
}

impl State {
    fn of_header(header: &[u8]) -> Self {
        match header[RESERVED_AT] {
            0 => Self::Plain,
            RESERVED_BYTES => Self::Summed,
            _ => Self::Foreign,
        }
    }
}

/// What is known of an open database file.
struct Tracked {
    state: State,
    /// Mapped pages that were compared, by number.
    compared: Vec<u64>,
    /// Pages that were written before it was known whether they have checksums.
    unsummed: Vec<u64>,
}

impl Tracked {
    fn is_compared(&self, number: u64) -> bool {
        let (word, bit) = (number / 64, number % 64);
        usize::try_from(word).is_ok_and(|word| self.compared.get(word).is_some_and(|bits| bits >> bit & 1 == 1))
    }

    fn note_compared(&mut self, number: u64) {
        let (Ok(word), bit) = (usize::try_from(number / 64), number % 64) else { return };
        if word >= self.compared.len() {
            self.compared.resize(word + 1, 0);
        }
        self.compared[word] |= 1 << bit;
    }

    /// Looks at a page that was read or mapped; whether it is as it was written.
    fn look(&mut self, page: &[u8], number: u64) -> bool {
        if number == 1 {
            self.state = State::of_header(page);
        }
        match self.state {
            State::Unknown | State::Plain => true,
            State::Summed if is_sound(page, number) => true,
            State::Summed | State::Foreign => {
                DAMAGED.set(Some(number));
                false
            }
        }
    }
}

/// A file as SQLite sees it; the real one follows in the same allocation.
#[repr(C)]
struct ShimFile {
    base: ffi::sqlite3_file,
    real: *mut ffi::sqlite3_file,
    /// Absent for files that are no database: logs, journals, temporary files.
    tracked: *mut Tracked,
}

/// The name of the VFS with checksums above another, or above the platform's own.
pub(crate) fn vfs(base: Option<&str>) -> String {
    static REGISTERED: OnceLock<Mutex<HashSet<String>>> = OnceLock::new();
    let name = base.map_or_else(|| "ochre".to_owned(), |base| format!("ochre-{base}"));
    let mut registered =
        REGISTERED.get_or_init(Mutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if registered.insert(name.clone()) {
        register(&name, base);
    }
    name
}

fn register(name: &str, base: Option<&str>) {
    let c_name = CString::new(name).expect("names of VFS have no NUL");
    let c_base = base.map(|base| CString::new(base).expect("names of VFS have no NUL"));
    // SAFETY: a registered VFS lives as long as the process; the copy of it only changes what is ours, and is leaked,
    // as SQLite requires. Its other methods get the copy and use nothing of it but `pAppData`, which those of the
    // platform do to find their locking, so those that need it are forwarded with the real one.
    unsafe {
        let real = ffi::sqlite3_vfs_find(c_base.as_ref().map_or(ptr::null(), |base| base.as_ptr()));
        assert!(!real.is_null(), "the VFS below is registered");
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

/// Asks SQLite to leave room for checksums: in a new database at once, in an old one when it is vacuumed.
pub(super) fn reserve(connection: &Connection, schema: &str) -> rusqlite::Result<()> {
    let mut bytes = c_int::from(RESERVED_BYTES);
    control(connection, schema, ffi::SQLITE_FCNTL_RESERVE_BYTES, (&raw mut bytes).cast())
}

/// Whether the pages of a connection's database have checksums.
pub(crate) fn has_checksums(connection: &Connection) -> rusqlite::Result<bool> {
    let mut answer: c_int = 0;
    control(connection, "main", CONTROL_HAS_CHECKSUMS, (&raw mut answer).cast())?;
    Ok(answer == 1)
}

/// What [`CONTROL_COMPARE`] is given.
struct Compare {
    first: u64,
    count: u64,
    damaged: Vec<u64>,
    pages: u64,
}

/// Compares pages of the database file itself, whether anything refers to them or not: which are damaged, and how many
/// pages the file has. None are if the file has no checksums.
pub(crate) fn damaged_pages(connection: &Connection, first: u64, count: u64) -> rusqlite::Result<(Vec<u64>, u64)> {
    let mut compare = Compare { first, count, damaged: Vec::new(), pages: 0 };
    control(connection, "main", CONTROL_COMPARE, (&raw mut compare).cast())?;
    Ok((compare.damaged, compare.pages))
}

fn control(connection: &Connection, schema: &str, operation: c_int, argument: *mut c_void) -> rusqlite::Result<()> {
    let schema = CString::new(schema).map_err(rusqlite::Error::NulError)?;
    // SAFETY: the handle is open as long as the connection is borrowed, and the argument is what the operation wants.
    let result = unsafe { ffi::sqlite3_file_control(connection.handle(), schema.as_ptr(), operation, argument) };
    match result {
        ffi::SQLITE_OK => Ok(()),
        error => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(error), None)),
    }
}

fn methods(version: c_int) -> &'static ffi::sqlite3_io_methods {
    static METHODS: OnceLock<[ffi::sqlite3_io_methods; 2]> = OnceLock::new();
    let of_version = |version: c_int| ffi::sqlite3_io_methods {
        iVersion: version,
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
        xFetch: Some(fetch),
        xUnfetch: Some(unfetch),
    };
    let methods = METHODS.get_or_init(|| [2, 3].map(of_version));
    if version >= 3 { &methods[1] } else { &methods[0] }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs, name: ffi::sqlite3_filename, file: *mut ffi::sqlite3_file, flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite hands us our own VFS and `szOsFile` bytes for the file; the real file's bytes follow the shim's.
    unsafe {
        let real_vfs = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        let shim = file.cast::<ShimFile>();
        (*shim).base.pMethods = ptr::null();
        (*shim).real = shim.add(1).cast::<ffi::sqlite3_file>();
        (*shim).tracked = ptr::null_mut();
        let real = (*shim).real;
        let result = (*real_vfs).xOpen.expect("a VFS opens files")(real_vfs, name, real, flags, out_flags);
        if (*real).pMethods.is_null() {
            return result;
        }
        (*shim).base.pMethods = methods((*(*real).pMethods).iVersion);
        if result == ffi::SQLITE_OK && flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            let tracked = Tracked { state: first_state(real), compared: Vec::new(), unsummed: Vec::new() };
            (*shim).tracked = Box::into_raw(Box::new(tracked));
        }
        result
    }
}

/// What the header of a file says, if it has one.
///
/// # Safety
/// `real` is an open file.
unsafe fn first_state(real: *mut ffi::sqlite3_file) -> State {
    let mut header = [0u8; 100];
    // SAFETY: the buffer has as many bytes as are asked for.
    let result =
        unsafe { (*(*real).pMethods).xRead.expect("every file is read")(real, header.as_mut_ptr().cast(), 100, 0) };
    if result == ffi::SQLITE_OK { State::of_header(&header) } else { State::Unknown }
}

/// How many pages a file has, as its header says.
///
/// # Safety
/// `real` is an open file.
unsafe fn pages_of_header(real: *mut ffi::sqlite3_file) -> u64 {
    let mut header = [0u8; 32];
    // SAFETY: the buffer has as many bytes as are asked for.
    let result =
        unsafe { (*(*real).pMethods).xRead.expect("every file is read")(real, header.as_mut_ptr().cast(), 32, 0) };
    let pages = u32::from_be_bytes(header[28..].try_into().expect("four bytes"));
    // Of a header that cannot be read nothing is known.
    if result == ffi::SQLITE_OK { u64::from(pages) } else { u64::MAX }
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    // SAFETY: as in `open`.
    unsafe {
        let real_vfs = (*vfs).pAppData.cast::<ffi::sqlite3_vfs>();
        (*real_vfs).xDelete.expect("a VFS deletes files")(real_vfs, name, sync_dir)
    }
}

/// The real file behind a shim, its methods, and what is known of it.
///
/// # Safety
/// `file` is one that `open` filled in, and nobody else uses it meanwhile: SQLite uses a file from one thread at a
/// time.
unsafe fn parts<'a>(
    file: *mut ffi::sqlite3_file,
) -> (*mut ffi::sqlite3_file, &'a ffi::sqlite3_io_methods, Option<&'a mut Tracked>) {
    // SAFETY: `open` set the fields, and they live until `close`.
    unsafe {
        let shim = file.cast::<ShimFile>();
        let real = (*shim).real;
        (real, &*(*real).pMethods, (*shim).tracked.as_mut())
    }
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

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, buffer: *mut c_void, count: c_int, offset: i64) -> c_int {
    // SAFETY: a file of `open`'s, and SQLite's promise that `count` bytes can be written.
    unsafe {
        let (real, methods, tracked) = parts(file);
        let result = methods.xRead.expect("every file is read")(real, buffer, count, offset);
        let (Some(tracked), Some(number)) = (tracked, page_at(offset, count)) else { return result };
        let page = std::slice::from_raw_parts(buffer.cast::<u8>(), PAGE_BYTES);
        match result {
            ffi::SQLITE_OK if !tracked.look(page, number) => ffi::SQLITE_IOERR_DATA,
            // A page that the file should have is missing. One that it should not have yet is read by SQLite just after
            // it was allocated, and taken for zeros.
            ffi::SQLITE_IOERR_SHORT_READ if tracked.state == State::Summed && number <= pages_of_header(real) => {
                DAMAGED.set(Some(number));
                ffi::SQLITE_IOERR_DATA
            }
            result => result,
        }
    }
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, bytes: *const c_void, count: c_int, offset: i64) -> c_int {
    // SAFETY: a file of `open`'s, and SQLite's promise that `count` bytes can be read.
    unsafe {
        let (real, methods, tracked) = parts(file);
        let write = methods.xWrite.expect("every file is written");
        let (Some(tracked), Some(number)) = (tracked, page_at(offset, count)) else {
            return write(real, bytes, count, offset);
        };
        let page = std::slice::from_raw_parts(bytes.cast::<u8>(), PAGE_BYTES);
        if number == 1 {
            tracked.state = State::of_header(page);
        } else if tracked.state == State::Plain {
            // Another connection may have written the first page of a vacuumed file since.
            tracked.state = first_state(real);
        }
        match tracked.state {
            State::Summed => {}
            State::Unknown => {
                tracked.unsummed.push(number);
                return write(real, bytes, count, offset);
            }
            State::Plain | State::Foreign => return write(real, bytes, count, offset),
        }
        for earlier in std::mem::take(&mut tracked.unsummed) {
            let mut page = [0u8; PAGE_BYTES];
            let at = (earlier - 1).cast_signed() * PAGE_BYTES as i64;
            let read = methods.xRead.expect("every file is read")(real, page.as_mut_ptr().cast(), count, at);
            if read != ffi::SQLITE_OK {
                return read;
            }
            let written = write(real, sealed(&page, earlier).as_ptr().cast(), count, at);
            if written != ffi::SQLITE_OK {
                return written;
            }
        }
        write(real, sealed(page, number).as_ptr().cast(), count, offset)
    }
}

unsafe extern "C" fn fetch(file: *mut ffi::sqlite3_file, offset: i64, count: c_int, out: *mut *mut c_void) -> c_int {
    // SAFETY: a file of `open`'s whose real one has this method (see `methods`); what it hands out has `count` bytes.
    unsafe {
        let (real, methods, tracked) = parts(file);
        let result = methods.xFetch.expect("the platform's files have this method")(real, offset, count, out);
        let (Some(tracked), Some(number)) = (tracked, page_at(offset, count)) else { return result };
        if result != ffi::SQLITE_OK || (*out).is_null() || number != 1 && tracked.is_compared(number) {
            return result;
        }
        let page = std::slice::from_raw_parts((*out).cast::<u8>(), PAGE_BYTES);
        if number == 1 && tracked.is_compared(1) && State::of_header(page) == tracked.state {
            return result;
        }
        if !tracked.look(page, number) {
            methods.xUnfetch.expect("the platform's files have this method")(real, offset, *out);
            *out = ptr::null_mut();
            return ffi::SQLITE_IOERR_DATA;
        }
        if tracked.state == State::Summed {
            tracked.note_compared(number);
        }
        result
    }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, operation: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: a file of `open`'s; the arguments of our own operations are made in this file, others are SQLite's.
    unsafe {
        let (real, methods, tracked) = parts(file);
        match (operation, tracked) {
            (CONTROL_HAS_CHECKSUMS, Some(tracked)) => {
                *argument.cast::<c_int>() = c_int::from(tracked.state == State::Summed);
                ffi::SQLITE_OK
            }
            (CONTROL_COMPARE, Some(tracked)) => {
                let compare = &mut *argument.cast::<Compare>();
                let mut size = 0i64;
                let result = methods.xFileSize.expect("every file has a size")(real, &raw mut size);
                if result == ffi::SQLITE_OK {
                    compare.pages = size.cast_unsigned().div_ceil(PAGE_BYTES as u64);
                    if tracked.state == State::Summed {
                        compare_pages(real, methods, compare);
                    }
                }
                result
            }
            _ => methods.xFileControl.expect("every file is controlled")(real, operation, argument),
        }
    }
}

/// Compares pages of a file that has checksums. Others may be writing it: what looks damaged is read again.
///
/// # Safety
/// `real` is an open file and `methods` are its own.
unsafe fn compare_pages(real: *mut ffi::sqlite3_file, methods: &ffi::sqlite3_io_methods, compare: &mut Compare) {
    let end = compare.first.saturating_add(compare.count).min(compare.pages + 1);
    for number in compare.first.max(1)..end {
        let at = (number - 1).cast_signed() * PAGE_BYTES as i64;
        if at == LOCK_BYTE {
            continue;
        }
        let mut is_read_as_written = false;
        for _ in 0..3 {
            let mut page = [0u8; PAGE_BYTES];
            let bytes = c_int::try_from(PAGE_BYTES).expect("a small number");
            // SAFETY: the buffer has as many bytes as are asked for.
            let read = unsafe { methods.xRead.expect("every file is read")(real, page.as_mut_ptr().cast(), bytes, at) };
            is_read_as_written = read == ffi::SQLITE_OK && is_sound(&page, number);
            if is_read_as_written {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        if !is_read_as_written {
            compare.damaged.push(number);
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
    truncate => xTruncate(size: i64) -> c_int;
    sync => xSync(flags: c_int) -> c_int;
    file_size => xFileSize(size: *mut i64) -> c_int;
    lock => xLock(level: c_int) -> c_int;
    unlock => xUnlock(level: c_int) -> c_int;
    check_reserved_lock => xCheckReservedLock(result: *mut c_int) -> c_int;
    sector_size => xSectorSize() -> c_int;
    device_characteristics => xDeviceCharacteristics() -> c_int;
    shm_map => xShmMap(page: c_int, size: c_int, extend: c_int, memory: *mut *mut c_void) -> c_int;
    shm_lock => xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier => xShmBarrier() -> ();
    shm_unmap => xShmUnmap(delete: c_int) -> c_int;
    unfetch => xUnfetch(offset: i64, page: *mut c_void) -> c_int;
}
