#include <fmt/format.h>

#include <boost/multiprecision/cpp_int.hpp>
#include <cstring>
#include <rqxx/codec.hpp>

namespace rqxx {
namespace {

using boost::multiprecision::cpp_int;
using Kind = Value::Kind;

/// A value under construction. Nodes refer to each other by index, so that what the memo shares is
/// shared until the end, also while it still grows.
struct Node {
    Kind kind = Kind::none;
    Value scalar;                         ///< Of kinds without children.
    std::string label;                    ///< Of an opaque node.
    std::vector<std::uint32_t> children;  ///< Items; of a dict alternately key and value.
    bool is_global = false;               ///< A name, not (yet) a thing made from it.
};

/// A decoded two's complement little-endian number.
cpp_int big_number(std::string_view bytes) {
    cpp_int number = 0;
    for (std::size_t i = bytes.size(); i-- > 0;)
        number = (number << 8) | static_cast<unsigned char>(bytes[i]);
    if (!bytes.empty() && (static_cast<unsigned char>(bytes.back()) & 0x80) != 0)
        number -= cpp_int(1) << static_cast<unsigned>(8 * bytes.size());
    return number;
}

std::string fraction(std::uint32_t micros) {
    return micros == 0 ? std::string() : fmt::format(".{:06}", micros);
}

std::string clock_text(std::string_view bytes) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const std::uint32_t micros = at(3) << 16u | at(4) << 8u | at(5);
    return fmt::format("{:02}:{:02}:{:02}{}", at(0) & 0x7f, at(1), at(2), fraction(micros));
}

std::string date_text(std::string_view bytes) {
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    return fmt::format("{:04}-{:02}-{:02}", at(0) * 256 + at(1), at(2) & 0x7f, at(3));
}

class Decoder {
public:
    Decoder(std::string_view bytes, const DecodeLimits& limits) : bytes_(bytes), limits_(limits) {}

    Value run() {
        if (bytes_.size() > limits_.max_bytes) fail("the pickle is too large");
        for (;;) {
            opcode_at_ = at_;
            const auto opcode = static_cast<unsigned char>(take(1)[0]);
            if (opcode == '.') break;
            step(opcode);
        }
        if (stack_.size() != 1 || !marks_.empty())
            fail("the stack does not hold one value at the end");
        return convert(stack_.back(), 0);
    }

private:
    struct Failure {
        ParseError error;
    };
    friend Parsed<Value> rqxx::decode_pickle(std::string_view, const DecodeLimits&) noexcept;

    [[noreturn]] void fail(std::string message) const {
        throw Failure{ParseError(std::move(message), {}, opcode_at_)};
    }

    // ---- input ----------------------------------------------------------------------------------

    std::string_view take(std::uint64_t size) {
        if (size > bytes_.size() - at_) fail("the pickle is truncated");
        const auto piece = bytes_.substr(at_, static_cast<std::size_t>(size));
        at_ += static_cast<std::size_t>(size);
        return piece;
    }
    std::uint64_t number(std::size_t width) {
        const auto piece = take(width);
        std::uint64_t value = 0;
        for (std::size_t i = width; i-- > 0;)
            value = value << 8 | static_cast<unsigned char>(piece[i]);
        return value;
    }
    std::string_view line() {
        const auto end = bytes_.find('\n', at_);
        if (end == std::string_view::npos) fail("the pickle is truncated");
        const auto text = bytes_.substr(at_, end - at_);
        at_ = end + 1;
        return text;
    }

    // ---- stack ----------------------------------------------------------------------------------

    std::uint32_t make(Node node) {
        if (nodes_.size() >= limits_.max_nodes) fail("the pickle has too many values");
        nodes_.push_back(std::move(node));
        return static_cast<std::uint32_t>(nodes_.size() - 1);
    }
    void push(std::uint32_t node) {
        if (stack_.size() >= limits_.max_nodes) fail("the pickle has too many values");
        stack_.push_back(node);
    }
    void push_scalar(Value value) {
        Node node;
        node.kind = value.kind();
        node.scalar = std::move(value);
        push(make(std::move(node)));
    }
    void push_container(Kind kind, std::vector<std::uint32_t> children = {}) {
        Node node;
        node.kind = kind;
        node.children = std::move(children);
        push(make(std::move(node)));
    }
    std::uint32_t pop() {
        const std::size_t floor = marks_.empty() ? 0 : marks_.back();
        if (stack_.size() <= floor) fail("a value is missing on the stack");
        const auto top = stack_.back();
        stack_.pop_back();
        return top;
    }
    std::uint32_t top() const {
        if (stack_.empty()) fail("a value is missing on the stack");
        return stack_.back();
    }
    /// Everything above the last mark.
    std::vector<std::uint32_t> pop_marked() {
        if (marks_.empty()) fail("a mark is missing");
        const auto from = static_cast<std::ptrdiff_t>(marks_.back());
        marks_.pop_back();
        std::vector<std::uint32_t> items(stack_.begin() + from, stack_.end());
        stack_.resize(static_cast<std::size_t>(from));
        return items;
    }
    /// Adds to the container on top of the stack. An opaque one collects whatever it is given.
    void extend(std::span<const std::uint32_t> items, std::initializer_list<Kind> kinds) {
        Node& container = nodes_[top()];
        if (container.kind != Kind::opaque &&
            std::find(kinds.begin(), kinds.end(), container.kind) == kinds.end())
            fail("an item is added to something that is no container");
        edges_ += items.size();
        if (edges_ > limits_.max_nodes) fail("the pickle has too many values");
        container.children.insert(container.children.end(), items.begin(), items.end());
    }
    void remember(std::uint64_t index) {
        if (index > limits_.max_nodes) fail("the memo is too large");
        if (memo_.size() <= index) memo_.resize(static_cast<std::size_t>(index) + 1, no_node);
        memo_[static_cast<std::size_t>(index)] = top();
        next_memo_ = std::max(next_memo_, static_cast<std::size_t>(index) + 1);
    }
    void recall(std::uint64_t index) {
        if (index >= memo_.size() || memo_[static_cast<std::size_t>(index)] == no_node)
            fail("the memo has no such entry");
        push(memo_[static_cast<std::size_t>(index)]);
    }

    // ---- globals, calls
    // --------------------------------------------------------------------------

    void push_global(std::string_view module, std::string_view name) {
        Node node;
        node.kind = Kind::opaque;
        node.is_global = true;
        node.label = fmt::format("{}.{}", module == "__builtin__" ? "builtins" : module, name);
        push(make(std::move(node)));
    }
    const Node& text_node(std::uint32_t index) const {
        const Node& node = nodes_[index];
        if (node.kind != Kind::string) fail("a name is not a string");
        return node;
    }

    /// The bytes of a bytes or (protocol 2) latin-1 text argument.
    static std::optional<std::string> argument_bytes(const Node& node) {
        if (node.kind == Kind::bytes) return node.scalar.as_text();
        return std::nullopt;
    }

    /// What `callable(*args)` makes, for callables that are known to be plain data.
    std::optional<Node> known_call(const std::string& callable,
                                   const std::vector<std::uint32_t>& args) {
        const auto scalar = [](Kind kind, std::string text) {
            Node node;
            node.kind = kind;
            node.scalar = Value::text(kind, std::move(text));
            return node;
        };
        const auto container = [](Kind kind, std::vector<std::uint32_t> children = {}) {
            Node node;
            node.kind = kind;
            node.children = std::move(children);
            return node;
        };
        const auto arg = [&](std::size_t i) -> const Node& { return nodes_[args[i]]; };
        if (callable == "builtins.set" || callable == "builtins.frozenset") {
            const Kind kind = callable == "builtins.set" ? Kind::set : Kind::frozenset;
            if (args.empty()) return container(kind);
            if (args.size() == 1 && (arg(0).kind == Kind::list || arg(0).kind == Kind::tuple))
                return container(kind, arg(0).children);
        }
        if ((callable == "builtins.bytes" || callable == "builtins.bytearray") && args.empty())
            return scalar(Kind::bytes, "");
        if (callable == "builtins.bytearray" && arg(0).kind == Kind::bytes)
            return scalar(Kind::bytes, arg(0).scalar.as_text());
        if (callable == "_codecs.encode" && args.size() == 2 && arg(0).kind == Kind::string) {
            // Protocol 2 has no bytes: each code point below 256 is one.
            const std::string& text = arg(0).scalar.as_text();
            std::string raw;
            for (std::size_t i = 0; i < text.size(); ++i) {
                const auto lead = static_cast<unsigned char>(text[i]);
                if (lead < 0x80)
                    raw += text[i];
                else if ((lead == 0xc2 || lead == 0xc3) && i + 1 < text.size())
                    raw += static_cast<char>((lead & 0x03) << 6 |
                                             (static_cast<unsigned char>(text[++i]) & 0x3f));
                else
                    return std::nullopt;
            }
            return scalar(Kind::bytes, std::move(raw));
        }
        if (callable == "collections.OrderedDict" && args.empty()) return container(Kind::dict);
        if (callable == "decimal.Decimal" && args.size() == 1 && arg(0).kind == Kind::string)
            return scalar(Kind::decimal, arg(0).scalar.as_text());
        if (callable == "uuid.UUID" && args.size() == 1 && arg(0).kind == Kind::string)
            return scalar(Kind::uuid, arg(0).scalar.as_text());
        if (callable == "datetime.timedelta" && args.size() == 3 && arg(0).kind == Kind::integer &&
            arg(1).kind == Kind::integer && arg(2).kind == Kind::integer)
            return scalar(
                Kind::timedelta,
                fmt::format("P{}DT{}{}S", arg(0).scalar.as_integer(), arg(1).scalar.as_integer(),
                            fraction(static_cast<std::uint32_t>(
                                std::clamp<std::int64_t>(arg(2).scalar.as_integer(), 0, 999999)))));
        if (callable == "datetime.timezone" && (args.size() == 1 || args.size() == 2) &&
            arg(0).kind == Kind::timedelta)
            return zone(arg(0).scalar.as_text());
        if (callable.starts_with("datetime.") && (args.size() == 1 || args.size() == 2)) {
            const auto raw = argument_bytes(arg(0));
            std::string offset;
            if (raw && args.size() == 2) {
                if (!arg(1).label.starts_with("datetime.timezone ")) return std::nullopt;
                offset = arg(1).label.substr(18);
            }
            if (raw && callable == "datetime.date" && raw->size() == 4 && args.size() == 1)
                return scalar(Kind::date, date_text(*raw));
            if (raw && callable == "datetime.datetime" && raw->size() == 10)
                return scalar(
                    Kind::datetime,
                    date_text(*raw) + "T" + clock_text(std::string_view(*raw).substr(4)) + offset);
            if (raw && callable == "datetime.time" && raw->size() == 6)
                return scalar(Kind::time, clock_text(*raw) + offset);
        }
        return std::nullopt;
    }

    /// An offset from UTC, kept in the label of an opaque node: no Python value of its own in a
    /// payload.
    static std::optional<Node> zone(const std::string& timedelta) {
        long days = 0, seconds = 0;
        if (std::sscanf(timedelta.c_str(), "P%ldDT%ld", &days, &seconds) != 2 || days < -1 ||
            days > 1 || seconds < 0 || seconds > 86400)
            return std::nullopt;
        const long total = days * 86400 + seconds;
        const long size = std::abs(total);
        Node node;
        node.kind = Kind::opaque;
        node.label = fmt::format("datetime.timezone {}{:02}:{:02}", total < 0 ? '-' : '+',
                                 size / 3600, size / 60 % 60);
        if (size % 60 != 0) node.label += fmt::format(":{:02}", size % 60);
        return node;
    }

    void call(std::uint32_t callable_index, std::vector<std::uint32_t> args) {
        const std::string label =
            nodes_[callable_index].is_global ? nodes_[callable_index].label : std::string();
        if (!label.empty()) {
            if (auto known = known_call(label, args)) return push(make(std::move(*known)));
        }
        Node node;
        node.kind = Kind::opaque;
        node.label = label.empty() ? "call" : label;
        if (label.empty()) node.children.push_back(callable_index);
        node.children.insert(node.children.end(), args.begin(), args.end());
        edges_ += args.size();
        push(make(std::move(node)));
    }

    std::vector<std::uint32_t> tuple_items(std::uint32_t index) {
        if (nodes_[index].kind != Kind::tuple) return {index};
        return nodes_[index].children;
    }

    /// State for the object on top. UUIDs carry theirs as one big number.
    void build(std::uint32_t state) {
        Node& object = nodes_[top()];
        if (object.label == "uuid.UUID" && nodes_[state].kind == Kind::dict) {
            const auto& fields = nodes_[state].children;
            for (std::size_t i = 0; i + 1 < fields.size(); i += 2) {
                const Node& key = nodes_[fields[i]];
                const Node& value = nodes_[fields[i + 1]];
                if (key.kind != Kind::string || key.scalar.as_text() != "int") continue;
                cpp_int number;
                if (value.kind == Kind::integer && value.scalar.as_integer() >= 0)
                    number = value.scalar.as_integer();
                else if (value.kind == Kind::big_integer &&
                         !value.scalar.as_text().starts_with('-'))
                    number = cpp_int(value.scalar.as_text());
                else
                    break;
                if (number >= cpp_int(1) << 128) break;
                std::string hex = number.str(0, std::ios_base::hex);
                hex.insert(0, 32 - hex.size(), '0');
                for (const std::size_t dash : {20, 16, 12, 8})
                    hex.insert(dash, 1, '-');
                object.kind = Kind::uuid;
                object.scalar = Value::text(Kind::uuid, hex);
                object.label.clear();
                object.children.clear();
                return;
            }
        }
        if (object.kind == Kind::opaque) {
            object.children.push_back(state);
            return;
        }
        // State of a subclass of a container or the like: the value itself is what can be shown.
    }

    // ---- opcodes --------------------------------------------------------------------------------

    void push_long(std::string_view raw) {
        if (raw.size() > 4096) {
            Node node;
            node.kind = Kind::opaque;
            node.label = fmt::format("int of {} bytes", raw.size());
            return push(make(std::move(node)));
        }
        const cpp_int number = big_number(raw);
        if (number >= std::numeric_limits<std::int64_t>::min() &&
            number <= std::numeric_limits<std::int64_t>::max())
            push_scalar(static_cast<std::int64_t>(number));
        else
            push_scalar(Value::text(Kind::big_integer, number.str()));
    }

    void step(unsigned char opcode) {
        switch (opcode) {
            case 0x80: {
                const auto protocol = number(1);
                if (protocol < 2 || protocol > 5)
                    fail(fmt::format("pickle protocol {} is not supported", protocol));
                break;
            }
            case 0x95:
                number(8);
                break;
            case 'N':
                push_scalar({});
                break;
            case 0x88:
                push_scalar(true);
                break;
            case 0x89:
                push_scalar(false);
                break;
            case 'K':
                push_scalar(number(1));
                break;
            case 'M':
                push_scalar(number(2));
                break;
            case 'J':
                push_scalar(static_cast<std::int32_t>(static_cast<std::uint32_t>(number(4))));
                break;
            case 0x8a:
                push_long(take(number(1)));
                break;
            case 0x8b:
                push_long(take(number(4)));
                break;
            case 'G': {
                const auto raw = take(8);
                std::uint64_t bits = 0;
                for (char c : raw)
                    bits = bits << 8 | static_cast<unsigned char>(c);
                double value = 0;
                std::memcpy(&value, &bits, sizeof value);
                push_scalar(value);
                break;
            }
            case 0x8c:
                push_scalar(Value(take(number(1))));
                break;
            case 'X':
                push_scalar(Value(take(number(4))));
                break;
            case 0x8d:
                push_scalar(Value(take(number(8))));
                break;
            case 'C':
                push_scalar(Value::bytes(std::string(take(number(1)))));
                break;
            case 'B':
                push_scalar(Value::bytes(std::string(take(number(4)))));
                break;
            case 0x8e:
            case 0x96:
                push_scalar(Value::bytes(std::string(take(number(8)))));
                break;
            case ')':
                push_container(Kind::tuple);
                break;
            case ']':
                push_container(Kind::list);
                break;
            case '}':
                push_container(Kind::dict);
                break;
            case 0x8f:
                push_container(Kind::set);
                break;
            case '(':
                marks_.push_back(stack_.size());
                break;
            case 't': {
                auto items = pop_marked();
                push_container(Kind::tuple, std::move(items));
                break;
            }
            case 0x85:
            case 0x86:
            case 0x87: {
                std::vector<std::uint32_t> items(opcode - 0x84u);
                for (std::size_t i = items.size(); i-- > 0;)
                    items[i] = pop();
                push_container(Kind::tuple, std::move(items));
                break;
            }
            case 'a': {
                const auto item = pop();
                extend({&item, 1}, {Kind::list});
                break;
            }
            case 'e': {
                const auto items = pop_marked();
                extend(items, {Kind::list});
                break;
            }
            case 's': {
                const auto value = pop();
                const auto key = pop();
                const std::array pair{key, value};
                extend(pair, {Kind::dict});
                break;
            }
            case 'u': {
                const auto items = pop_marked();
                if (items.size() % 2 != 0) fail("a dict has a key without a value");
                extend(items, {Kind::dict});
                break;
            }
            case 0x90: {
                const auto items = pop_marked();
                extend(items, {Kind::set});
                break;
            }
            case 0x91: {
                auto items = pop_marked();
                push_container(Kind::frozenset, std::move(items));
                break;
            }
            case 0x94:
                remember(next_memo_);
                break;
            case 'q':
                remember(number(1));
                break;
            case 'r':
                remember(number(4));
                break;
            case 'h':
                recall(number(1));
                break;
            case 'j':
                recall(number(4));
                break;
            case 'c': {
                const auto module = line();
                const auto name = line();
                push_global(module, name);
                break;
            }
            case 0x93: {
                const auto name = pop();
                const auto module = pop();
                push_global(text_node(module).scalar.as_text(), text_node(name).scalar.as_text());
                break;
            }
            case 'R': {
                const auto args = pop();
                const auto callable = pop();
                call(callable, tuple_items(args));
                break;
            }
            case 0x81: {
                const auto args = pop();
                const auto type = pop();
                call(type, tuple_items(args));
                break;
            }
            case 0x92: {
                const auto kwargs = pop();
                const auto args = pop();
                const auto type = pop();
                auto all = tuple_items(args);
                all.push_back(kwargs);
                call(type, std::move(all));
                break;
            }
            case 'b': {
                const auto state = pop();
                build(state);
                break;
            }
            case '0':
                pop();
                break;
            case '1':
                pop_marked();
                break;
            case '2':
                push(top());
                break;
            default:
                fail(fmt::format("opcode 0x{:02x} is not supported", opcode));
        }
    }

    // ---- result ---------------------------------------------------------------------------------

    Value convert(std::uint32_t index, std::size_t depth) {
        if (depth > limits_.max_depth) fail("the value is nested too deeply, or contains itself");
        if (++converted_ > limits_.max_nodes) fail("the pickle has too many values");
        const Node& node = nodes_[index];
        const auto items = [&] {
            Value::Items result;
            result.reserve(node.children.size());
            for (const auto child : node.children)
                result.push_back(convert(child, depth + 1));
            return result;
        };
        switch (node.kind) {
            case Kind::list:
                return Value::list(items());
            case Kind::tuple:
                return Value::tuple(items());
            case Kind::set:
                return Value::set(items());
            case Kind::frozenset:
                return Value::frozenset(items());
            case Kind::opaque:
                return Value::opaque(node.label, items());
            case Kind::dict: {
                Value::Pairs pairs;
                for (std::size_t i = 0; i + 1 < node.children.size(); i += 2)
                    pairs.push_back({convert(node.children[i], depth + 1),
                                     convert(node.children[i + 1], depth + 1)});
                return Value::dict(std::move(pairs));
            }
            default:
                // Text shared many times over is copied each time: it counts as what it weighs.
                if (node.scalar.kind() == Kind::string || node.scalar.kind() == Kind::bytes) {
                    copied_ += node.scalar.as_text().size();
                    if (copied_ > limits_.max_bytes) fail("the value is too large");
                }
                return node.scalar;
        }
    }

    static constexpr std::uint32_t no_node = 0xffffffff;

    std::string_view bytes_;
    const DecodeLimits& limits_;
    std::size_t at_ = 0;
    std::size_t opcode_at_ = 0;
    std::vector<Node> nodes_;
    std::vector<std::uint32_t> stack_;
    std::vector<std::size_t> marks_;
    std::vector<std::uint32_t> memo_;
    std::size_t next_memo_ = 0;
    std::size_t edges_ = 0;
    std::size_t converted_ = 0;
    std::size_t copied_ = 0;
};

}  // namespace

Parsed<Value> decode_pickle(std::string_view bytes, const DecodeLimits& limits) noexcept {
    try {
        return Decoder(bytes, limits).run();
    } catch (Decoder::Failure& failure) {
        return std::move(failure.error);
    } catch (const std::bad_alloc&) {
        return ParseError("not enough memory for the pickle");
    } catch (const std::exception& error) {
        return ParseError(error.what());
    }
}

}  // namespace rqxx
