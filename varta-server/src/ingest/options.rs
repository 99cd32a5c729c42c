/// The queue of a UDP socket that nobody has to give, in bytes as the kernel counts them: some ten thousand beats.
pub(crate) const DEFAULT_UDP_RECEIVE_BUFFER: usize = 8 << 20;
/// How many agents may share memory with the server if nobody says otherwise: each takes one of the 65,530 mappings that a
/// process usually may have (`vm.max_map_count`).
pub(crate) const DEFAULT_MAX_SHM_AGENTS: usize = 16_384;
/// The most that can be asked for.
pub(crate) const LARGEST_RECEIVE_BUFFER: usize = 1 << 30;
