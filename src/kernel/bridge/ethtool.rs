//! Flags and features of interfaces by ioctl, which all kernels have.
//!
//! A [`Control`] belongs to the network namespace in which it was opened, whichever thread uses it.

#![allow(unsafe_code, reason = "ioctl has no safe form")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::kernel::ifindex::IfIndex;

// From linux/ethtool.h.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// A feature as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feature {
    pub name: String,
    /// Its bit in the kernel's set.
    bit: usize,
    /// Whether it may be switched.
    pub available: bool,
    /// What was asked for: what `ethtool -K` changes.
    pub requested: bool,
    /// What came of it.
    pub active: bool,
}

/// A socket through which interfaces are controlled.
#[derive(Debug)]
pub(super) struct Control(OwnedFd);

impl Control {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(
            AddressFamily::Inet,
            SockType::Datagram,
            flags,
            None,
        )?))
    }

    /// The name that an interface has now.
    pub(super) fn name(&self, ifindex: IfIndex) -> io::Result<String> {
        let mut request = request("")?;
        request.ifr_ifru.ifru_ifindex = ifindex.get() as libc::c_int;
        self.call(libc::SIOCGIFNAME, &mut request)?;
        let name = request.ifr_name.iter().take_while(|c| **c != 0);
        let name: Vec<u8> = name.map(|c| *c as u8).collect();
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    /// Its hardware address, as the first six bytes of it.
    pub(super) fn mac(&self, name: &str) -> io::Result<[u8; 6]> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the call filled this member; all bit patterns are addresses.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        Ok(std::array::from_fn(|i| address.sa_data[i] as u8))
    }

    pub(super) fn mtu(&self, name: &str) -> io::Result<u32> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the call filled this member; all bit patterns are numbers.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    /// Its flags, `IFF_*`, as they were asked for: a packet socket that listens does not show in
    /// `IFF_PROMISC` (`dev_get_flags`, `net/core/dev.c`).
    pub(super) fn flags(&self, name: &str) -> io::Result<i32> {
        let mut request = request(name)?;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call filled this member; all bit patterns are numbers.
        Ok(unsafe { request.ifr_ifru.ifru_flags }.into())
    }

    /// Sets those flags that are in `which` as they are in `flags`.
    pub(super) fn set_flags(&self, name: &str, which: i32, flags: i32) -> io::Result<()> {
        let now = self.flags(name)?;
        let wanted = now & !which | flags & which;
        if wanted == now {
            return Ok(());
        }
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags = wanted as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// All features that the kernel knows.
    pub(super) fn features(&self, name: &str) -> io::Result<Vec<Feature>> {
        let count = self.feature_count(name)?;
        let names = self.feature_names(name, count)?;
        let blocks = count.div_ceil(32);
        // Four words a block: available, requested, active, never changed.
        let mut data = vec![0; 2 + blocks * 4];
        (data[0], data[1]) = (ETHTOOL_GFEATURES, blocks as u32);
        self.ethtool(name, &mut data)?;
        let has = |bit: usize, word: usize| data[2 + bit / 32 * 4 + word] >> (bit % 32) & 1 != 0;
        let features = names.into_iter().enumerate();
        Ok(features
            .map(|(bit, name)| Feature {
                name,
                bit,
                available: has(bit, 0),
                requested: has(bit, 1),
                active: has(bit, 2),
            })
            .collect())
    }

    /// Asks for features, on or off. What comes of it is for [`Control::features`] to say.
    pub(super) fn set_features(&self, name: &str, wanted: &[(&Feature, bool)]) -> io::Result<()> {
        let Some(last) = wanted.iter().map(|(feature, _)| feature.bit).max() else {
            return Ok(());
        };
        // All blocks, or the kernel refuses.
        let blocks = self.feature_count(name)?.max(last + 1).div_ceil(32);
        // Two words a block: valid, requested.
        let mut data = vec![0; 2 + blocks * 2];
        (data[0], data[1]) = (ETHTOOL_SFEATURES, blocks as u32);
        for (feature, on) in wanted {
            let block = 2 + feature.bit / 32 * 2;
            data[block] |= 1 << (feature.bit % 32);
            data[block + 1] |= u32::from(*on) << (feature.bit % 32);
        }
        self.ethtool(name, &mut data)
    }

    fn feature_count(&self, name: &str) -> io::Result<usize> {
        // Command, reserved, a mask of sets in 64 bits, and the size of the one set.
        let mut data = vec![ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
        // It is one number of 64 bits, in the byte order of the host.
        let mask: [u32; 2] = bytemuck::cast(1u64 << ETH_SS_FEATURES);
        data[2..4].copy_from_slice(&mask);
        self.ethtool(name, &mut data)?;
        Ok(data[4] as usize)
    }

    fn feature_names(&self, name: &str, count: usize) -> io::Result<Vec<String>> {
        let mut data = vec![0; 3 + count * ETH_GSTRING_LEN / size_of::<u32>()];
        (data[0], data[1], data[2]) = (ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count as u32);
        self.ethtool(name, &mut data)?;
        let bytes: &[u8] = bytemuck::cast_slice(&data[3..]);
        let names = bytes.chunks_exact(ETH_GSTRING_LEN).map(|name| {
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            String::from_utf8_lossy(&name[..end]).into_owned()
        });
        Ok(names.collect())
    }

    /// An ethtool command. `data` has room for all that the command may write: the kernel takes the
    /// sizes from the words in it.
    fn ethtool(&self, name: &str, data: &mut [u32]) -> io::Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_data = data.as_mut_ptr().cast();
        self.call(libc::SIOCETHTOOL, &mut request)
    }

    fn call(&self, number: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: `request` is a whole ifreq, which is what these calls read and write. A pointer in
        // it is set by `ethtool` only, to memory that outlives the call and is as long as the
        // command needs.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), number as _, request) } {
            ..0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zero is a valid ifreq: no name, no data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}
