#include <gtest/gtest.h>

#include <rqxx/job.hpp>
#include <set>

using namespace rqxx;

namespace {

using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;

Pairs views(const FieldList& fields) {
    return {fields.begin(), fields.end()};
}

}  // namespace

TEST(job_hash, keeps_unknown_fields_and_statuses) {
    const Pairs fields{{"data", "x"}, {"status", "rate_limited"}, {"future", "\xff"}};
    const Job job = parse_job("a", fields).value();
    EXPECT_EQ(job.status, "rate_limited");
    EXPECT_EQ(job.extra, (FieldList{{"future", "\xff"}}));
    const FieldList written = to_fields(job);
    EXPECT_EQ(parse_job("a", views(written)).value().extra, job.extra);
}

TEST(job_hash, always_has_the_fields_that_rq_writes) {
    std::set<std::string> names;
    for (const auto& [name, value] : to_fields(Job{}))
        names.insert(name);
    for (const char* name :
         {"data", "status", "created_at", "started_at", "ended_at", "last_heartbeat", "worker_name",
          "group_id", "success_callback_name", "failure_callback_name", "stopped_callback_name"})
        EXPECT_TRUE(names.contains(name)) << name;
    EXPECT_FALSE(names.contains("retry_intervals"));
}

TEST(job_hash, names_the_field_that_is_wrong) {
    for (const auto& [field, value] : Pairs{{"created_at", "yesterday"},
                                            {"timeout", "1h"},
                                            {"result_ttl", "1.5"},
                                            {"retry_intervals", "[1, \"2\"]"},
                                            {"dependency_ids", "{}"},
                                            {"enqueue_at_front", "maybe"},
                                            {"dependency_id", "a b"}}) {
        const auto job = parse_job("a", Pairs{{"data", "x"}, {field, value}});
        ASSERT_FALSE(job) << field;
        EXPECT_EQ(job.error().field, field);
    }
    EXPECT_EQ(parse_job("a", Pairs{{"status", "queued"}}).error().field, "data");
}

TEST(job_hash, takes_empty_optional_fields_as_absent) {
    const Job job = parse_job("a", Pairs{{"data", "x"},
                                         {"timeout", ""},
                                         {"ttl", ""},
                                         {"enqueue_at_front", ""},
                                         {"started_at", ""},
                                         {"retry_intervals", ""},
                                         {"dependency_ids", ""}})
                        .value();
    EXPECT_FALSE(job.timeout || job.ttl || job.enqueue_at_front || job.started_at);
}

TEST(job_id, is_what_rq_allows) {
    for (const char* good : {"a", "A-z_9", "2f59f113-2f50-4703-bed5-625c0aaaaaaa"})
        EXPECT_TRUE(is_valid_job_id(good));
    for (const char* bad : {"", "a b", "a:b", "é", "a/b", "a\n"})
        EXPECT_FALSE(is_valid_job_id(bad));
    EXPECT_TRUE(is_valid_job_id(new_job_id()));
    EXPECT_EQ(new_execution_id().size(), 32u);
    EXPECT_EQ(new_execution_id()[12], '7');
}

TEST(result_entry, reads_what_was_captured_from_rq) {
    const Pairs fields{{"type", "1"},
                       {"worker_name", "w1"},
                       {"return_value", "gAVLAy4="},
                       {"execution_id", "3fa35af7961746c3bf298f7af172a2fe"},
                       {"execution_started_at", "1795456544.965519"}};
    const Result result = parse_result("1795456544977-0", fields).value();
    EXPECT_EQ(decode(result.return_value).value(), Value(3));
    EXPECT_EQ(format_utc(*result.created_at), "2026-11-23T17:55:44.977000Z");
    EXPECT_EQ(format_utc(*result.execution_started_at), "2026-11-23T17:55:44.965519Z");
}

TEST(result_entry, refuses_types_and_encodings_that_rq_refuses) {
    for (const Pairs& fields : {Pairs{}, Pairs{{"type", "0"}}, Pairs{{"type", "6"}},
                                Pairs{{"type", "x"}}, Pairs{{"type", "2"}, {"exc_string", "!!!!"}},
                                Pairs{{"type", "1"}, {"return_value", "abc"}}})
        EXPECT_FALSE(parse_result("1-0", fields));
}

TEST(result_entry, stores_unserializable_values_as_rqs_text) {
    const std::string stored = encode_return_value(Value::opaque("x.y"), Serializer::pickle);
    EXPECT_EQ(decode(base64_decode(stored).value()).value(), Value("Unserializable return value"));
    EXPECT_EQ(encode_return_value(Value(), Serializer::pickle), "");
}
