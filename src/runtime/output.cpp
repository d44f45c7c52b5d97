#include "runtime/output.hpp"

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

namespace rqxx::runtime {

using ops::OutputChunk;
using ops::OutputChunks;

namespace {

/// Of an element in Redis; larger writes take several.
constexpr std::size_t largest_chunk = std::size_t{64} << 10;

void append(std::deque<OutputChunk>& chunks, OutputChunk::Stream stream, std::string_view text) {
    while (!text.empty()) {
        if (chunks.empty() || chunks.back().stream != stream ||
            chunks.back().text.size() >= largest_chunk)
            chunks.push_back({stream, {}});
        std::string& last = chunks.back().text;
        const std::string_view part = text.substr(0, largest_chunk - last.size());
        last += part;
        text.remove_prefix(part.size());
    }
}

}  // namespace

struct Output::State {
    std::size_t left;  ///< Of the first half.
    std::deque<OutputChunk> fresh;
    std::deque<OutputChunk> tail;
    std::size_t tail_size = 0;
    std::size_t dropped = 0;
};

Output::Output() = default;
Output::~Output() = default;

void Output::add(OutputChunk::Stream stream, std::string_view text) {
    if (limit_ == 0 || text.empty()) return;
    const std::scoped_lock lock(mutex_);
    if (!state_) {
        state_ = std::make_unique<State>();
        state_->left = limit_ / 2;
    }
    State& state = *state_;
    const std::string_view first = text.substr(0, state.left);
    state.left -= first.size();
    append(state.fresh, stream, first);
    text.remove_prefix(first.size());
    append(state.tail, stream, text);
    state.tail_size += text.size();
    const std::size_t most = limit_ - limit_ / 2;
    while (state.tail_size > most) {
        std::string& oldest = state.tail.front().text;
        const std::size_t excess = std::min(state.tail_size - most, oldest.size());
        state.tail_size -= excess;
        state.dropped += excess;
        if (excess == oldest.size())
            state.tail.pop_front();
        else
            oldest.erase(0, excess);
    }
}

OutputChunks Output::take() {
    const std::scoped_lock lock(mutex_);
    if (!state_) return {};
    OutputChunks chunks(std::move_iterator(state_->fresh.begin()),
                        std::move_iterator(state_->fresh.end()));
    state_->fresh.clear();
    return chunks;
}

OutputChunks Output::take_rest() {
    OutputChunks chunks = take();
    const std::scoped_lock lock(mutex_);
    if (!state_) return chunks;
    if (state_->dropped > 0)
        chunks.push_back({OutputChunk::Stream::cut, std::to_string(state_->dropped)});
    std::ranges::move(state_->tail, std::back_inserter(chunks));
    state_->tail.clear();
    state_->tail_size = state_->dropped = 0;
    return chunks;
}

}  // namespace rqxx::runtime
