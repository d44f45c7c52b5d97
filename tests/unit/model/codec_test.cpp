#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <fstream>
#include <iterator>
#include <rqxx/codec.hpp>
#include <rqxx/job.hpp>

using namespace rqxx;

namespace {

const boost::json::value& golden() {
    static const boost::json::value recorded = [] {
        std::ifstream in(RQXX_TEST_DATA "/golden/pickles.json");
        const std::string text{std::istreambuf_iterator<char>(in), {}};
        return boost::json::parse(text);
    }();
    return recorded;
}

std::string unhex(std::string_view hex) {
    std::string bytes;
    for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
        bytes += static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16));
    return bytes;
}

std::string text(const boost::json::value& object, const char* key) {
    return std::string(object.at(key).as_string());
}

std::string why(std::string_view pickle, const DecodeLimits& limits = {}) {
    const auto value = decode_pickle(pickle, limits);
    return value ? "decoded" : value.error().message;
}

}  // namespace

TEST(pickle_decoder, reads_what_cpython_writes_in_every_protocol) {
    for (const auto& entry : golden().at("values").as_array()) {
        const auto value = decode_pickle(unhex(text(entry, "hex")));
        ASSERT_TRUE(value) << text(entry, "repr") << ": " << value.error().describe();
        if (entry.as_object().contains("json") && !entry.at("foreign").as_bool())
            EXPECT_EQ(encode_json(*value), text(entry, "json"));
    }
}

TEST(pickle_decoder, keeps_plain_values_through_a_round_trip) {
    for (const auto& entry : golden().at("values").as_array()) {
        if (entry.at("foreign").as_bool()) continue;
        const auto value = decode_pickle(unhex(text(entry, "hex"))).value();
        EXPECT_EQ(decode_pickle(encode_pickle(value)).value(), value) << text(entry, "repr");
    }
}

TEST(pickle_decoder, shows_foreign_objects_as_opaque_nodes) {
    bool seen = false;
    for (const auto& entry : golden().at("values").as_array()) {
        const auto value = decode_pickle(unhex(text(entry, "hex"))).value();
        if (value.kind() != Value::Kind::opaque || value.as_text() != "rq.job.Retry") continue;
        EXPECT_EQ(*value.parts().back().find("max"), Value(3));
        seen = true;
    }
    EXPECT_TRUE(seen);
}

TEST(pickle_decoder, refuses_a_cycle) {
    EXPECT_EQ(why(std::string_view("\x80\x04]\x94h\0a.", 8)),
              "the value is nested too deeply, or contains itself");
}

TEST(pickle_decoder, refuses_shared_values_that_would_explode) {
    // [a, a] of [b, b] of …: small in the pickle, 2^40 values when unfolded.
    std::string pickle = "\x80\x04(]\x94";
    for (char i = 0; i < 40; ++i) {
        pickle += "](h";
        pickle += i;
        pickle += "h";
        pickle += i;
        pickle += "e\x94";
    }
    EXPECT_EQ(why(pickle + "t."), "the pickle has too many values");
}

TEST(pickle_decoder, refuses_truncation_at_every_byte) {
    const std::string whole =
        encode_pickle(Value::tuple({"text", 1, 2.5, Value::list({Value::bytes("b")})}));
    for (std::size_t size = 0; size < whole.size(); ++size) {
        // An exact-size copy, so that a sanitizer sees a read behind the end.
        const std::unique_ptr<char[]> copy(new char[size]);
        std::copy_n(whole.data(), size, copy.get());
        EXPECT_FALSE(decode_pickle(std::string_view(copy.get(), size)));
    }
}

TEST(pickle_decoder, refuses_lengths_beyond_the_input) {
    EXPECT_EQ(why(std::string_view("\x80\x05X\xff\xff\xff\xff.", 8)), "the pickle is truncated");
    EXPECT_EQ(why(std::string_view("\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", 12)),
              "the pickle is truncated");
}

TEST(pickle_decoder, names_an_opcode_it_does_not_know) {
    const auto value = decode_pickle("\x80\x04P0\n.");
    ASSERT_FALSE(value);
    EXPECT_EQ(value.error().describe(), "opcode 0x50 is not supported (at byte 2)");
}

TEST(pickle_encoder, refuses_what_it_cannot_make) {
    EXPECT_THROW((void)encode_pickle(Value::opaque("os.system")), Error);
    EXPECT_THROW((void)encode_json(Value::bytes("x")), Error);
}

TEST(call_payload, reads_what_rq_writes_with_both_serializers) {
    for (const auto& entry : golden().at("calls").as_array()) {
        Serializer used{};
        const auto call = decode_call(unhex(text(entry, "hex")), {}, &used);
        ASSERT_TRUE(call) << call.error().describe();
        EXPECT_EQ(to_string(used), text(entry, "serializer"));
        EXPECT_EQ(call->func_name, "tasks.add");
        EXPECT_TRUE(call->instance.is_none());
        EXPECT_EQ(call->args.items().at(1), Value("é"));
        EXPECT_EQ(describe_call(*call), "tasks.add(1, 'é', y=[2.5, None])");
    }
}

TEST(call_payload, bounds_a_zlib_bomb) {
    const std::string bomb = zlib_compress(std::string(20'000'000, '\0'));
    const auto call = decode_call(bomb, {.max_bytes = 1 << 20});
    ASSERT_FALSE(call);
    EXPECT_EQ(call.error().describe(), "data: the compressed data is too large when unpacked");
}

TEST(json_serializer, reads_pythons_special_numbers) {
    EXPECT_TRUE(std::isnan(decode_json("NaN").value().as_real()));
    EXPECT_EQ(decode_json("[-Infinity]").value().items().at(0).as_real(), -HUGE_VAL);
    EXPECT_EQ(decode_json("123456789012345678901234567890").value(),
              Value::text(Value::Kind::big_integer, "123456789012345678901234567890"));
    EXPECT_EQ(decode_json("3.2e-47").value().as_real(), 3.2e-47);
    EXPECT_EQ(decode_json("\"NaN\"").value(), Value("NaN"));
    for (const char* bad : {"", "nan", "01", "1.", "[1", "[1] 2", "{\"a\" 1}", "+1", "--1"})
        EXPECT_FALSE(decode_json(bad)) << bad;
}

TEST(value_repr, is_pythons) {
    for (const auto& entry : golden().at("values").as_array()) {
        const std::string python = text(entry, "repr");
        // Types without a Python literal of their own are shown in our way.
        if (entry.at("foreign").as_bool() || python.starts_with("bytearray") ||
            python.starts_with("OrderedDict"))
            continue;
        EXPECT_EQ(repr(decode_pickle(unhex(text(entry, "hex"))).value(), 10000), python);
    }
}

TEST(value_repr, is_cut_between_characters) {
    EXPECT_EQ(repr(Value(std::string(100, 'x')), 10), "'xxxxxxxxx...");
    EXPECT_EQ(repr(Value("ééééé"), 4), "'é...");
}
