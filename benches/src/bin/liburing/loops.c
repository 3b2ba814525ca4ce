/* The loops of the contestant `liburing`. Beside each is its twin in Rust, in src/by_hand. */

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Of kit: the pace of a work, and how much of a batch is still to be echoed. */
struct pace {
	uint64_t *left;
	const void *kit;
};
extern bool bench_turn(const void *);
extern _Atomic uint64_t bench_left;
extern bool bench_client_batch(void);

static inline bool again(const struct pace *pace)
{
	if (*pace->left) {
		--*pace->left;
		return true;
	}
	return bench_turn(pace->kit);
}

static inline bool echoed(uint32_t bytes)
{
	uint64_t left = atomic_load_explicit(&bench_left, memory_order_relaxed) - bytes;

	atomic_store_explicit(&bench_left, left, memory_order_relaxed);
	return !left && bench_client_batch();
}

static int setup(struct io_uring *ring, uint32_t entries)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	int result = io_uring_queue_init_params(entries, ring, &params);

	/* No NO_SQARRAY: a liburing that knows it sets it, and one that doesn't would write to that array. */
	return result < 0 ? result : io_uring_register_ring_fd(ring);
}

static inline struct io_uring_sqe *next(struct io_uring *ring)
{
	struct io_uring_sqe *sqe;

	while (__builtin_expect(!(sqe = io_uring_get_sqe(ring)), 0))
		io_uring_submit(ring);
	return sqe;
}

static inline int submit_and_wait(struct io_uring *ring)
{
	int result = io_uring_submit_and_wait(ring, 1);

	return result < 0 && result != -EINTR ? result : 0;
}

static inline void nop(struct io_uring *ring, uint32_t slot)
{
	struct io_uring_sqe *sqe = next(ring);

	io_uring_prep_nop(sqe);
	io_uring_sqe_set_data64(sqe, slot);
}

int loop_nop(const struct pace *pace, uint32_t depth, uint64_t *counters)
{
	struct io_uring ring;
	uint32_t left = depth;
	int result = setup(&ring, 4 * depth);

	if (result < 0)
		return result;
	for (uint32_t slot = 0; slot < depth; slot++)
		nop(&ring, slot);
	while (left) {
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;

		if ((result = submit_and_wait(&ring)) < 0)
			return result;
		io_uring_for_each_cqe(&ring, head, cqe) {
			uint64_t slot = io_uring_cqe_get_data64(cqe);

			seen++;
			if (cqe->res < 0)
				return cqe->res;
			counters[slot]++;
			if (again(pace))
				nop(&ring, slot);
			else
				left--;
		}
		io_uring_cq_advance(&ring, seen);
	}
	io_uring_queue_exit(&ring);
	return 0;
}

enum { BLOCK = 4096 };

struct reads {
	struct io_uring ring;
	int fd;
	bool fixed;
	uint64_t random, count;
	char (*blocks)[BLOCK];
	uint64_t *offsets;
};

static inline void start_read(struct reads *reads, uint32_t slot)
{
	struct io_uring_sqe *sqe = next(&reads->ring);

	reads->random ^= reads->random << 13;
	reads->random ^= reads->random >> 7;
	reads->random ^= reads->random << 17;
	reads->offsets[slot] = reads->random % reads->count * BLOCK;
	if (reads->fixed) {
		io_uring_prep_read_fixed(sqe, 0, reads->blocks[slot], BLOCK, reads->offsets[slot], slot);
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	} else {
		io_uring_prep_read(sqe, reads->fd, reads->blocks[slot], BLOCK, reads->offsets[slot]);
	}
	io_uring_sqe_set_data64(sqe, slot);
}

int loop_read(const struct pace *pace, uint32_t depth, uint64_t *counters, int fd, bool fixed,
	      char (*blocks)[BLOCK], uint64_t count)
{
	uint64_t offsets[depth];
	struct reads reads = {
		.fd = fd, .fixed = fixed, .random = 0x9E3779B97F4A7C15, .count = count,
		.blocks = blocks, .offsets = offsets,
	};
	uint32_t left = depth;
	int result = setup(&reads.ring, 4 * depth);

	if (result < 0)
		return result;
	if (fixed) {
		struct iovec buffers[depth];

		for (uint32_t slot = 0; slot < depth; slot++)
			buffers[slot] = (struct iovec){ blocks[slot], BLOCK };
		if ((result = io_uring_register_buffers(&reads.ring, buffers, depth)) < 0)
			return result;
		if ((result = io_uring_register_files(&reads.ring, &fd, 1)) < 0)
			return result;
	}
	for (uint32_t slot = 0; slot < depth; slot++)
		start_read(&reads, slot);
	while (left) {
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;

		if ((result = submit_and_wait(&reads.ring)) < 0)
			return result;
		io_uring_for_each_cqe(&reads.ring, head, cqe) {
			uint64_t slot = io_uring_cqe_get_data64(cqe), begin;

			seen++;
			memcpy(&begin, blocks[slot], sizeof(begin));
			if (cqe->res != BLOCK || begin != offsets[slot])
				return cqe->res < 0 ? cqe->res : -EIO;
			counters[slot]++;
			if (again(pace))
				start_read(&reads, slot);
			else
				left--;
		}
		io_uring_cq_advance(&reads.ring, seen);
	}
	io_uring_queue_exit(&reads.ring);
	return 0;
}

/* What a completion is about: in the upper half of `user_data`, above the index of the connection. */
enum { ACCEPT, RECEIVE, SEND, CLOSE };

enum { ALIGN = 16, PAGE = 4096 };

struct chunk {
	uint32_t length;
	uint16_t next;
};

struct connection {
	int fd;
	/* One-shot: the buffer, and how much of it is to be sent. */
	char *buffer;
	uint32_t length;
	/* How much of it, or of the first waiting buffer, has been sent. */
	uint32_t sent;
	/* Multishot: the buffers that wait to be sent, with the one that is being sent. */
	bool receiving;
	uint16_t waiting, first, last;
};

struct server {
	struct io_uring ring;
	int listener;
	bool multishot;
	uint32_t buffer;
	void *(*alloc)(size_t, size_t);
	struct connection *connections;
	uint32_t *free;
	uint32_t count, capacity, free_count;
	/* Multishot: provided buffers, and connections that don't receive because there was none. */
	struct io_uring_buf_ring *buffers;
	uint32_t buffer_mask;
	char *memory;
	struct chunk *chunks;
	uint32_t *starved;
	uint32_t starved_count;
};

static inline void set_data(struct io_uring_sqe *sqe, uint32_t kind, uint32_t index)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)kind << 32 | index);
}

static void start_accept(struct server *server)
{
	struct io_uring_sqe *sqe = next(&server->ring);

	if (server->multishot)
		io_uring_prep_multishot_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
	else
		io_uring_prep_accept(sqe, server->listener, NULL, NULL, SOCK_CLOEXEC);
	set_data(sqe, ACCEPT, 0);
}

static inline void receive(struct server *server, uint32_t index)
{
	struct io_uring_sqe *sqe = next(&server->ring);
	struct connection *connection = &server->connections[index];

	if (server->multishot) {
		connection->receiving = true;
		io_uring_prep_recv_multishot(sqe, connection->fd, NULL, 0, 0);
		sqe->buf_group = 0;
		io_uring_sqe_set_flags(sqe, IOSQE_BUFFER_SELECT);
	} else {
		io_uring_prep_recv(sqe, connection->fd, connection->buffer, server->buffer, 0);
	}
	set_data(sqe, RECEIVE, index);
}

static inline void send_rest(struct server *server, uint32_t index)
{
	struct io_uring_sqe *sqe = next(&server->ring);
	struct connection *connection = &server->connections[index];
	char *buffer = connection->buffer;
	uint32_t length = connection->length;

	if (server->multishot) {
		buffer = server->memory + (size_t)connection->first * server->buffer;
		length = server->chunks[connection->first].length;
	}
	io_uring_prep_send(sqe, connection->fd, buffer + connection->sent, length - connection->sent, MSG_NOSIGNAL);
	set_data(sqe, SEND, index);
}

static void close_connection(struct server *server, uint32_t index)
{
	struct io_uring_sqe *sqe = next(&server->ring);

	io_uring_prep_close(sqe, server->connections[index].fd);
	set_data(sqe, CLOSE, index);
	server->free[server->free_count++] = index;
}

static void close_if_done(struct server *server, uint32_t index)
{
	struct connection *connection = &server->connections[index];

	if (!connection->receiving && !connection->waiting)
		close_connection(server, index);
}

static void *grown(struct server *server, void *old, size_t size, uint32_t count)
{
	void *new = server->alloc(2 * size * count, ALIGN);

	if (old && new)
		memcpy(new, old, size * count);
	return new;
}

static int accepted(struct server *server, struct io_uring_cqe *cqe)
{
	uint32_t index;
	struct connection *connection;

	if (cqe->res < 0 && cqe->res != -ECONNABORTED)
		return cqe->res;
	if (!server->multishot || !(cqe->flags & IORING_CQE_F_MORE))
		start_accept(server);
	if (cqe->res < 0)
		return 0;
	if (server->free_count) {
		index = server->free[--server->free_count];
	} else {
		if (server->count == server->capacity) {
			uint32_t count = server->capacity;

			server->connections = grown(server, server->connections, sizeof(struct connection), count);
			server->free = grown(server, server->free, sizeof(uint32_t), count);
			server->starved = grown(server, server->starved, sizeof(uint32_t), count);
			if (!server->connections || !server->free || !server->starved)
				return -ENOMEM;
			server->capacity *= 2;
		}
		index = server->count++;
		if (!server->multishot && !(server->connections[index].buffer = server->alloc(server->buffer, ALIGN)))
			return -ENOMEM;
	}
	connection = &server->connections[index];
	connection->fd = cqe->res;
	connection->sent = connection->waiting = 0;
	receive(server, index);
	return 0;
}

static inline void give(struct server *server, uint16_t buffer)
{
	char *memory = server->memory + (size_t)buffer * server->buffer;

	io_uring_buf_ring_add(server->buffers, memory, server->buffer, buffer, server->buffer_mask, 0);
	io_uring_buf_ring_advance(server->buffers, 1);
}

static inline void received_multishot(struct server *server, uint32_t index, struct io_uring_cqe *cqe)
{
	struct connection *connection = &server->connections[index];

	if (cqe->flags & IORING_CQE_F_BUFFER) {
		uint16_t buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT;

		server->chunks[buffer].length = cqe->res > 0 ? cqe->res : 0;
		if (!connection->waiting++) {
			connection->first = buffer;
			send_rest(server, index);
		} else {
			server->chunks[connection->last].next = buffer;
		}
		connection->last = buffer;
	}
	if (__builtin_expect(cqe->flags & IORING_CQE_F_MORE, 1))
		return;
	if (cqe->res > 0) {
		receive(server, index);
	} else if (cqe->res == -ENOBUFS) {
		server->starved[server->starved_count++] = index;
	} else {
		connection->receiving = false;
		close_if_done(server, index);
	}
}

static inline bool sent_multishot(struct server *server, uint32_t index, int result)
{
	struct connection *connection = &server->connections[index];
	struct chunk chunk = server->chunks[connection->first];
	uint16_t buffer = connection->first;

	if (result < 0) {
		/* The client takes nothing any more: what is for it is dropped. */
		for (; connection->waiting; connection->waiting--) {
			give(server, connection->first);
			connection->first = server->chunks[connection->first].next;
		}
		connection->sent = 0;
		close_if_done(server, index);
		return false;
	}
	connection->sent += result;
	if (connection->sent < chunk.length) {
		send_rest(server, index);
		return false;
	}
	connection->sent = 0;
	connection->first = chunk.next;
	give(server, buffer);
	if (--connection->waiting)
		send_rest(server, index);
	else if (!connection->receiving)
		close_if_done(server, index);
	if (server->starved_count)
		receive(server, server->starved[--server->starved_count]);
	return echoed(chunk.length);
}

static inline void received(struct server *server, uint32_t index, struct io_uring_cqe *cqe)
{
	struct connection *connection = &server->connections[index];

	if (server->multishot) {
		received_multishot(server, index, cqe);
	} else if (cqe->res <= 0) {
		close_connection(server, index);
	} else {
		connection->length = cqe->res;
		connection->sent = 0;
		send_rest(server, index);
	}
}

static inline bool sent(struct server *server, uint32_t index, int result)
{
	struct connection *connection = &server->connections[index];

	if (server->multishot)
		return sent_multishot(server, index, result);
	if (result < 0) {
		close_connection(server, index);
		return false;
	}
	connection->sent += result;
	if (connection->sent < connection->length) {
		send_rest(server, index);
		return false;
	}
	receive(server, index);
	return echoed(connection->length);
}

static int provide_buffers(struct server *server, uint32_t buffers)
{
	struct io_uring_buf_reg registration = { .ring_entries = buffers };
	int result;

	server->buffers = server->alloc(buffers * sizeof(struct io_uring_buf), PAGE);
	server->memory = server->alloc((size_t)buffers * server->buffer, PAGE);
	server->chunks = server->alloc(buffers * sizeof(struct chunk), ALIGN);
	if (!server->buffers || !server->memory || !server->chunks)
		return -ENOMEM;
	registration.ring_addr = (uintptr_t)server->buffers;
	if ((result = io_uring_register_buf_ring(&server->ring, &registration, 0)) < 0)
		return result;
	io_uring_buf_ring_init(server->buffers);
	server->buffer_mask = io_uring_buf_ring_mask(buffers);
	for (uint32_t buffer = 0; buffer < buffers; buffer++)
		give(server, buffer);
	return 0;
}

int loop_echo(int listener, bool multishot, uint32_t conns, uint32_t buffer, uint32_t buffers,
	      void *(*alloc)(size_t, size_t))
{
	struct server server = {
		.listener = listener, .multishot = multishot, .buffer = buffer, .alloc = alloc,
		.capacity = conns,
		.connections = alloc(conns * sizeof(struct connection), ALIGN),
		.free = alloc(conns * sizeof(uint32_t), ALIGN),
		.starved = alloc(conns * sizeof(uint32_t), ALIGN),
	};
	uint32_t entries = 64;
	int result;

	if (!server.connections || !server.free || !server.starved)
		return -ENOMEM;
	while (entries < 4 * conns && entries < 4096)
		entries *= 2;
	if ((result = setup(&server.ring, entries)) < 0)
		return result;
	if (multishot && (result = provide_buffers(&server, buffers)) < 0)
		return result;
	start_accept(&server);
	for (;;) {
		struct io_uring_cqe *cqe;
		unsigned head, seen = 0;

		if ((result = submit_and_wait(&server.ring)) < 0)
			return result;
		io_uring_for_each_cqe(&server.ring, head, cqe) {
			uint64_t data = io_uring_cqe_get_data64(cqe);
			uint32_t index = data;

			seen++;
			switch (data >> 32) {
			case RECEIVE:
				received(&server, index, cqe);
				break;
			case SEND:
				if (sent(&server, index, cqe->res)) {
					io_uring_queue_exit(&server.ring);
					return 0;
				}
				break;
			case ACCEPT:
				if ((result = accepted(&server, cqe)) < 0)
					return result;
				break;
			}
		}
		io_uring_cq_advance(&server.ring, seen);
	}
}
