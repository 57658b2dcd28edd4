//! The exported functions: NVML's names, argument orders and struct layouts (nvml.h, CUDA 12).

use crate::gpu::{Gpu, code};
use crate::script::{Field, Script};
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

static GPUS: Mutex<Option<Vec<Gpu>>> = Mutex::new(None);

const MEMORY_TOTAL: u64 = 80 << 30;
const MEMORY_USED: u64 = 60 << 30;

/// `nvmlUtilization_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlMemory_v2_t`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// A handle is the GPU's index plus one, so that null is none.
type Device = *mut c_void;

fn gpus() -> MutexGuard<'static, Option<Vec<Gpu>>> {
    GPUS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn uuid(index: usize) -> String {
    format!("GPU-d0b1e000-0000-4000-8000-{index:012x}")
}

fn with_gpu<T>(device: Device, ask: impl FnOnce(&mut Gpu) -> Result<T, u32>) -> Result<T, u32> {
    let mut gpus = gpus();
    let gpus = gpus.as_mut().ok_or(code::UNINITIALIZED)?;
    let index = device.addr().checked_sub(1).ok_or(code::INVALID_ARGUMENT)?;
    ask(gpus.get_mut(index).ok_or(code::INVALID_ARGUMENT)?)
}

/// Writes what was found through the caller's pointer.
///
/// # Safety
/// `out` is null or valid for a write of `T`.
unsafe fn put<T>(out: *mut T, found: Result<T, u32>) -> u32 {
    match found {
        Err(error) => error,
        Ok(_) if out.is_null() => code::INVALID_ARGUMENT,
        Ok(value) => {
            // SAFETY: not null, and the caller vouches for the rest.
            unsafe { out.write(value) };
            code::SUCCESS
        }
    }
}

/// Writes a text with its zero.
///
/// # Safety
/// `out` is null or valid for writes of `length` bytes.
unsafe fn put_text(out: *mut c_char, length: c_uint, found: Result<String, u32>) -> u32 {
    match found {
        Err(error) => error,
        Ok(_) if out.is_null() => code::INVALID_ARGUMENT,
        Ok(text) if text.len() >= length as usize => code::INSUFFICIENT_SIZE,
        Ok(text) => {
            // SAFETY: text and zero fit into `length`, and the caller vouches for the buffer.
            unsafe {
                out.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
                out.add(text.len()).write(0);
            }
            code::SUCCESS
        }
    }
}

/// `Dl_info` of dlfcn.h.
#[repr(C)]
struct DlInfo {
    file_name: *const c_char,
    file_base: *mut c_void,
    symbol_name: *const c_char,
    symbol_base: *mut c_void,
}

unsafe extern "C" {
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
}

/// The path that this library was loaded from.
fn own_path() -> Option<PathBuf> {
    let null: *mut c_void = std::ptr::null_mut();
    let mut info = DlInfo {
        file_name: null.cast(),
        file_base: null,
        symbol_name: null.cast(),
        symbol_base: null,
    };
    // SAFETY: the address lies in this library, and `info` is a valid place for the answer.
    let found = unsafe { dladdr((&raw const GPUS).cast(), &raw mut info) };
    if found == 0 || info.file_name.is_null() {
        return None;
    }
    // SAFETY: dladdr gave a string that lives as long as the library is loaded, which it is while it runs.
    let name = unsafe { CStr::from_ptr(info.file_name) };
    name.to_str().ok().map(PathBuf::from)
}

fn read_script() -> Result<Script, String> {
    if let Some(text) = own_path().and_then(|path| std::fs::read_to_string(crate::script_beside(&path)).ok()) {
        return Script::parse(&text);
    }
    let spec = std::env::var("NVML_DOUBLE").unwrap_or_default();
    match std::fs::read_to_string(&spec) {
        Ok(text) => Script::parse(&text),
        Err(_) => Script::parse(&spec),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a return code cannot say what is wrong with a script"
)]
fn initialize() -> u32 {
    let script = match read_script() {
        Ok(script) => script,
        Err(error) => {
            eprintln!("nvml-double: the script is wrong: {error}");
            return code::UNKNOWN;
        }
    };
    if script.init == code::SUCCESS {
        let started = Instant::now();
        // NVML counts initialisations; the GPUs, like real ones, do not start anew.
        gpus().get_or_insert_with(|| {
            (0..script.gpus)
                .map(|index| Gpu::new(&script, index, started))
                .collect()
        });
    }
    script.init
}

/// Begins.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInit_v2() -> u32 {
    initialize()
}

/// Begins; the flags change nothing here.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> u32 {
    initialize()
}

/// Ends; the counters go on, as they do in a driver.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlShutdown() -> u32 {
    code::SUCCESS
}

/// Names a code.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    let text = match result {
        code::SUCCESS => c"Success",
        code::NOT_SUPPORTED => c"Not Supported",
        code::GPU_IS_LOST => c"GPU is lost",
        _ => c"Error of the double",
    };
    text.as_ptr()
}

/// The driver's version.
///
/// # Safety
/// `version` is null or valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> u32 {
    // SAFETY: passed on.
    unsafe { put_text(version, length, Ok("570.00".to_owned())) }
}

/// How many GPUs there are.
///
/// # Safety
/// `count` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> u32 {
    let found = gpus()
        .as_ref()
        .map_or(Err(code::UNINITIALIZED), |gpus| Ok(gpus.len() as c_uint));
    // SAFETY: passed on.
    unsafe { put(count, found) }
}

/// The handle of the GPU at `index`.
///
/// # Safety
/// `device` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Device) -> u32 {
    let handle = std::ptr::without_provenance_mut(index as usize + 1);
    // SAFETY: passed on.
    unsafe { put(device, with_gpu(handle, |gpu| gpu.present()).map(|()| handle)) }
}

/// The handle of the GPU with this UUID.
///
/// # Safety
/// `uuid` is null or a string that ends with zero; `device` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetHandleByUUID(wanted: *const c_char, device: *mut Device) -> u32 {
    if wanted.is_null() {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller vouches for the zero.
    let wanted = unsafe { CStr::from_ptr(wanted) }.to_string_lossy();
    let count = gpus().as_ref().map_or(0, Vec::len);
    match (0..count).find(|&index| uuid(index) == wanted) {
        // SAFETY: passed on.
        Some(index) => unsafe { nvmlDeviceGetHandleByIndex_v2(index as c_uint, device) },
        None => code::NOT_FOUND,
    }
}

/// The index of a GPU.
///
/// # Safety
/// `index` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetIndex(device: Device, index: *mut c_uint) -> u32 {
    // SAFETY: passed on.
    unsafe {
        put(
            index,
            with_gpu(device, |gpu| gpu.present()).map(|()| device.addr() as c_uint - 1),
        )
    }
}

/// The name of a GPU's kind.
///
/// # Safety
/// `name` is null or valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetName(device: Device, name: *mut c_char, length: c_uint) -> u32 {
    let found = with_gpu(device, |gpu| gpu.present()).map(|()| "NVML double".to_owned());
    // SAFETY: passed on.
    unsafe { put_text(name, length, found) }
}

/// The UUID of a GPU.
///
/// # Safety
/// `out` is null or valid for writes of `length` bytes.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetUUID(device: Device, out: *mut c_char, length: c_uint) -> u32 {
    let found = with_gpu(device, |gpu| gpu.present()).map(|()| uuid(device.addr() - 1));
    // SAFETY: passed on.
    unsafe { put_text(out, length, found) }
}

/// The draw, milliwatts.
///
/// # Safety
/// `power` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: Device, power: *mut c_uint) -> u32 {
    // SAFETY: passed on.
    unsafe { put(power, with_gpu(device, |gpu| gpu.power_mw())) }
}

/// The energy counter, millijoules.
///
/// # Safety
/// `energy` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(device: Device, energy: *mut c_ulonglong) -> u32 {
    // SAFETY: passed on.
    unsafe { put(energy, with_gpu(device, Gpu::read_energy_mj)) }
}

/// How busy it is.
///
/// # Safety
/// `utilization` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: Device, utilization: *mut Utilization) -> u32 {
    let found = with_gpu(device, |gpu| gpu.answers(Field::Utilization).map(|()| gpu.utilization));
    // SAFETY: passed on.
    unsafe { put(utilization, found.map(|gpu| Utilization { gpu, memory: gpu / 2 })) }
}

/// Memory in use and in all.
///
/// # Safety
/// `memory` is null or points to an initialised struct.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, memory: *mut MemoryV2) -> u32 {
    if memory.is_null() {
        return code::INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let version = unsafe { (&raw const (*memory).version).read() };
    // NVML_STRUCT_VERSION(Memory, 2).
    if version as usize != size_of::<MemoryV2>() | (2 << 24) {
        return code::ARGUMENT_VERSION_MISMATCH;
    }
    let found = with_gpu(device, |gpu| gpu.answers(Field::Memory)).map(|()| MemoryV2 {
        version,
        total: MEMORY_TOTAL,
        reserved: 0,
        free: MEMORY_TOTAL - MEMORY_USED,
        used: MEMORY_USED,
    });
    // SAFETY: passed on.
    unsafe { put(memory, found) }
}

/// The temperature of the core, degrees Celsius.
///
/// # Safety
/// `temperature` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: Device,
    _sensor: c_uint,
    temperature: *mut c_uint,
) -> u32 {
    let found = with_gpu(device, |gpu| gpu.answers(Field::Temperature).map(|()| gpu.temperature));
    // SAFETY: passed on.
    unsafe { put(temperature, found) }
}

/// Why clocks are low: a bit mask.
///
/// # Safety
/// `reasons` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: Device,
    reasons: *mut c_ulonglong,
) -> u32 {
    let found = with_gpu(device, |gpu| gpu.answers(Field::Throttle).map(|()| gpu.throttle));
    // SAFETY: passed on.
    unsafe { put(reasons, found) }
}

/// The enforced power limit, milliwatts.
///
/// # Safety
/// `limit` is null or valid for a write.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: Device, limit: *mut c_uint) -> u32 {
    let found = with_gpu(device, |gpu| gpu.answers(Field::Limit).map(|()| gpu.limit_mw));
    // SAFETY: passed on.
    unsafe { put(limit, found) }
}
