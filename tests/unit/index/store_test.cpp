#include "index/store.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <rqxx/error.hpp>
#include <set>
#include <thread>

using namespace rqxx::index;

namespace {

class StoreTest : public ::testing::Test {
protected:
    StoreTest() {
        std::string name = (std::filesystem::temp_directory_path() / "rqxx-index-XXXXXX").string();
        folder_ = ::mkdtemp(name.data());
        store_ = std::make_unique<Store>(file());
    }
    ~StoreTest() override {
        store_.reset();
        std::filesystem::remove_all(folder_);
    }
    [[nodiscard]] std::filesystem::path file() const { return folder_ / "index.db"; }

    static JobChange job(const std::string& id, const std::string& status, const std::string& queue,
                         std::int64_t created) {
        IndexedJob job;
        job.status = status;
        job.queue = queue;
        job.function = "f." + queue;
        job.created = created;
        return {id, job};
    }
    static JobChange failed(const std::string& id, const std::string& error, std::int64_t ended) {
        JobChange change = job(id, "failed", "q", ended);
        change.job->ended = ended;
        change.job->error = error;
        change.job->group = group_error(error);
        return change;
    }

    std::vector<std::string> ids(const JobFilter& filter, std::size_t limit = 1000) {
        StoreReader reader(file());
        std::vector<std::string> found;
        std::optional<JobPosition> after;
        do {
            auto page = reader.find(filter, after, limit);
            EXPECT_LE(page.jobs.size(), limit);
            for (const auto& job : page.jobs)
                found.push_back(job.id);
            after = page.next;
        } while (after);
        return found;
    }

    std::filesystem::path folder_;
    std::unique_ptr<Store> store_;
};

using Texts = std::vector<std::string>;

}  // namespace

TEST_F(StoreTest, finds_jobs_by_each_filter_and_by_all_of_them_together) {
    std::vector<JobChange> jobs{job("a", "queued", "high", 10), job("b", "finished", "high", 20),
                                job("c", "finished", "low", 30)};
    jobs[1].job->worker = "w1";
    jobs[1].job->tags = {"blue", "big"};
    jobs[1].job->duration = 5'000'000;
    store_->apply(jobs);
    const auto by = [&](auto set) {
        JobFilter filter;
        set(filter);
        return ids(filter);
    };
    EXPECT_EQ(by([](auto&) {}), (Texts{"c", "b", "a"}));
    EXPECT_EQ(by([](auto& f) { f.newest_first = false; }), (Texts{"a", "b", "c"}));
    EXPECT_EQ(by([](auto& f) { f.statuses = {"finished"}; }), (Texts{"c", "b"}));
    EXPECT_EQ(by([](auto& f) { f.statuses = {"finished", "queued"}; }), (Texts{"c", "b", "a"}));
    EXPECT_EQ(by([](auto& f) { f.queues = {"high"}; }), (Texts{"b", "a"}));
    EXPECT_EQ(by([](auto& f) { f.queues = {"*i*"}; }), (Texts{"b", "a"}));
    EXPECT_EQ(by([](auto& f) { f.functions = {"f.l*", "f.high"}; }), (Texts{"c", "b", "a"}));
    EXPECT_EQ(by([](auto& f) { f.workers = {"w1"}; }), (Texts{"b"}));
    EXPECT_EQ(by([](auto& f) { f.tags = {"big"}; }), (Texts{"b"}));
    EXPECT_EQ(by([](auto& f) { f.tags = {"big", "blue"}; }), (Texts{"b"}));
    EXPECT_EQ(by([](auto& f) { f.id_prefix = "b"; }), (Texts{"b"}));
    EXPECT_EQ(by([](auto& f) { f.since = 20; }), (Texts{"c", "b"}));
    EXPECT_EQ(by([](auto& f) { f.until = 20; }), (Texts{"a"}));
    EXPECT_EQ(by([](auto& f) { f.min_duration = 5'000'000; }), (Texts{"b"}));
    EXPECT_EQ(by([](auto& f) { f.max_duration = 4'999'999; }), Texts{});
    EXPECT_EQ(by([](auto& f) {
                  f.statuses = {"finished"};
                  f.queues = {"h*"};
                  f.functions = {"f.high"};
                  f.workers = {"w1"};
                  f.tags = {"big"};
                  f.id_prefix = "b";
                  f.since = 1;
              }),
              (Texts{"b"}));
    EXPECT_EQ(by([](auto& f) { f.queues = {"nowhere"}; }), Texts{});
}

TEST_F(StoreTest, gives_each_job_once_page_by_page_also_where_they_were_created_at_once) {
    std::vector<JobChange> jobs;
    for (int i = 0; i < 300; ++i)
        jobs.push_back(
            job("j" + std::to_string(i), i % 3 == 0 ? "failed" : "queued", "q", i / 100));
    store_->apply(jobs);
    for (const bool newest : {true, false}) {
        JobFilter filter;
        filter.newest_first = newest;
        for (const std::size_t limit : {1, 7, 50}) {
            const auto found = ids(filter, limit);
            EXPECT_EQ(found.size(), 300u);
            EXPECT_EQ(std::set(found.begin(), found.end()).size(), 300u);
        }
        filter.queues = {"*"};
        filter.statuses = {"failed", "queued"};
        EXPECT_EQ(ids(filter, 7).size(), 300u);
    }
}

TEST_F(StoreTest, follows_a_job_from_one_status_to_the_next_and_out) {
    store_->apply({job("a", "queued", "q", 10)});
    store_->apply({job("a", "started", "q", 10)});
    JobFilter queued, started;
    queued.statuses = {"queued"};
    started.statuses = {"started"};
    EXPECT_EQ(ids(queued), Texts{});
    EXPECT_EQ(ids(started), Texts{"a"});
    EXPECT_EQ(store_->jobs(), 1);
    store_->apply({{"a", std::nullopt}});
    EXPECT_EQ(ids({}), Texts{});
    EXPECT_EQ(store_->jobs(), 0);
    StoreReader reader(file());
    EXPECT_TRUE(reader.suggest(NameKind::queue, "", 20).empty());
}

TEST_F(StoreTest, finds_a_failed_job_by_part_of_its_error_in_any_case) {
    std::vector<JobChange> jobs;
    for (int i = 0; i < 500; ++i)
        jobs.push_back(failed("j" + std::to_string(i),
                              "ValueError: order " + std::to_string(i) + " is \"odd\"", i));
    store_->apply(jobs);
    JobFilter filter;
    filter.error = "ORDER 321 ";
    EXPECT_EQ(ids(filter), Texts{"j321"});
    filter.error = "is \"odd\"";  // In more errors than the index of texts is asked for.
    EXPECT_EQ(ids(filter).size(), 500u);
    filter.error = "7 ";  // Too short for it.
    EXPECT_EQ(ids(filter).size(), 50u);
    filter.error = "nothing like it";
    EXPECT_EQ(ids(filter), Texts{});
    filter.error = "* OR order";
    EXPECT_EQ(ids(filter), Texts{});
}

TEST_F(StoreTest, counts_failures_by_group_and_forgets_groups_without_jobs) {
    constexpr std::int64_t hour = 3'600'000'000;
    store_->apply({failed("a", "ValueError: 1", 100 * hour),
                   failed("b", "ValueError: 2", 101 * hour),
                   failed("c", "KeyError: x", 90 * hour)});
    StoreReader reader(file());
    auto groups = reader.failures({}, std::nullopt, 10);
    ASSERT_EQ(groups.size(), 2u);
    EXPECT_EQ(groups[0].group.exception, "ValueError");
    EXPECT_EQ(groups[0].count, 2);
    EXPECT_EQ(groups[0].first_seen, 100 * hour);
    EXPECT_EQ(groups[0].last_seen, 101 * hour);
    reader.complete(groups[0], 101 * hour + 5);
    ASSERT_EQ(groups[0].hours.size(), 24u);
    EXPECT_EQ(groups[0].hours[23], 1);
    EXPECT_EQ(groups[0].hours[22], 1);
    ASSERT_EQ(groups[0].queues.size(), 1u);
    EXPECT_EQ(groups[0].queues[0].count, 2);
    EXPECT_EQ(groups[0].samples, (Texts{"b", "a"}));
    JobFilter filter;
    filter.groups = {groups[0].group.id};
    EXPECT_EQ(ids(filter), (Texts{"b", "a"}));

    store_->apply({job("a", "queued", "q", 1), {"b", std::nullopt}});
    groups = reader.failures({}, std::nullopt, 10);
    ASSERT_EQ(groups.size(), 1u);
    EXPECT_EQ(groups[0].group.exception, "KeyError");
    EXPECT_EQ(ids(filter), Texts{});
}

TEST_F(StoreTest, is_made_anew_where_the_file_is_no_database) {
    store_->apply({job("a", "queued", "q", 10)});
    store_.reset();
    for (const char* suffix : {"-wal", "-shm"})
        std::filesystem::remove(file().string() + suffix);
    std::ofstream(file(), std::ios::trunc) << std::string(100'000, 'x');
    store_ = std::make_unique<Store>(file());
    EXPECT_EQ(store_->jobs(), 0);
    store_->apply({job("b", "queued", "q", 10)});
    EXPECT_EQ(ids({}), Texts{"b"});
}

TEST_F(StoreTest, tells_exactly_how_many_fit_where_it_keeps_count) {
    std::vector<JobChange> jobs;
    for (int i = 0; i < 2000; ++i)
        jobs.push_back(job("j" + std::to_string(i), i % 2 == 0 ? "failed" : "queued",
                           i % 4 == 0 ? "a" : "b", i));
    store_->apply(jobs);
    StoreReader reader(file());
    const auto total = [&](const JobFilter& filter) {
        const auto page = reader.find(filter, std::nullopt, 10);
        EXPECT_TRUE(page.total_is_exact);
        return page.approx_total;
    };
    JobFilter filter;
    EXPECT_EQ(total(filter), 2000);
    filter.statuses = {"failed"};
    EXPECT_EQ(total(filter), 1000);
    filter.queues = {"a"};
    EXPECT_EQ(total(filter), 500);
    filter.since = 1990;
    EXPECT_EQ(total(filter), 2);
}

TEST_F(StoreTest, a_reader_goes_on_where_all_is_forgotten) {
    store_->apply({job("a", "queued", "q", 10)});
    StoreReader before(file());
    StoreReader unused(file());
    EXPECT_EQ(before.jobs(), 1);
    store_->clear();
    EXPECT_EQ(store_->meta("schema"), "1");
    EXPECT_EQ(unused.jobs(), 0);
    EXPECT_EQ(before.jobs(), 0);
    store_->apply({job("b", "queued", "q", 10), job("c", "queued", "q", 10)});
    EXPECT_EQ(unused.jobs(), 2);
    EXPECT_EQ(before.find({}, std::nullopt, 10).jobs.size(), 2u);
    EXPECT_EQ(ids({}), (Texts{"c", "b"}));
}

TEST_F(StoreTest, a_disk_that_is_full_is_no_reason_to_forget_what_is_known) {
    store_->apply({job("a", "queued", "q", 10)});
    std::vector<JobChange> more;
    for (int i = 0; i < 20'000; ++i)
        more.push_back(job("job-" + std::to_string(i), "queued", "q", i));
    // Files may not grow: what a full disk looks like to this process.
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto old = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{200'000, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    auto code = rqxx::Errc::internal;
    try {
        store_->apply(more);
    } catch (const rqxx::Error& error) {
        code = error.code();
    }
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, old);
    EXPECT_EQ(code, rqxx::Errc::io);
    EXPECT_EQ(ids({}), Texts{"a"});
    store_->apply({job("b", "queued", "q", 20)});
    EXPECT_EQ(ids({}), (Texts{"b", "a"}));
}

TEST_F(StoreTest, a_file_that_is_damaged_says_so) {
    store_.reset();
    std::ofstream(file()) << std::string(20'000, 'x');
    try {
        StoreReader reader(file());
        (void)reader.jobs();
        FAIL() << "it was read";
    } catch (const rqxx::Error& error) {
        EXPECT_EQ(error.code(), rqxx::Errc::decode);
    }
    store_ = std::make_unique<Store>(file());
    EXPECT_EQ(store_->jobs(), 0);
}

TEST_F(StoreTest, a_group_has_times_though_no_end_of_an_abandoned_job_is_known) {
    JobChange abandoned = failed("a", "AbandonedJobError", 0);
    abandoned.job->created = 5;
    store_->apply({abandoned, failed("b", "AbandonedJobError", 50)});
    StoreReader reader(file());
    auto groups = reader.failures({}, std::nullopt, 10);
    ASSERT_EQ(groups.size(), 1u);
    EXPECT_EQ(groups[0].first_seen, 5);
    EXPECT_EQ(groups[0].last_seen, 50);
    // Nothing at all is known of this one.
    store_->apply({failed("c", "OtherError", 0)});
    store_->apply({failed("d", "OtherError", 70)});
    store_->apply({failed("e", "OtherError", 0)});
    groups = reader.failures({}, std::nullopt, 10);
    ASSERT_EQ(groups.size(), 2u);
    EXPECT_EQ(groups[0].first_seen, 70);
    EXPECT_EQ(groups[0].last_seen, 70);
}

TEST_F(StoreTest, finds_no_job_of_another_queue_while_names_come_and_go) {
    std::atomic<bool> enough{false};
    std::thread writer([&] {
        for (int i = 0; !enough; ++i) {
            const std::string queue = i % 2 == 0 ? "mine" : "theirs";
            store_->apply({job("a", "queued", queue, 10)});
            store_->apply({{"a", std::nullopt}});
        }
    });
    StoreReader reader(file());
    JobFilter filter;
    filter.queues = {"mine"};
    int wrong = 0;
    for (int i = 0; i < 3000; ++i)
        for (const auto& found : reader.find(filter, std::nullopt, 10).jobs)
            if (found.queue != "mine") ++wrong;
    enough = true;
    writer.join();
    EXPECT_EQ(wrong, 0);
}

TEST_F(StoreTest, an_error_is_looked_for_by_any_text) {
    store_->apply({failed("a", "ValueError: no such order", 10)});
    JobFilter filter;
    filter.error = std::string("such\0order", 10);
    EXPECT_EQ(ids(filter), Texts{});
    filter.error = "such\" OR order*";
    EXPECT_EQ(ids(filter), Texts{});
    filter.error = "SUCH order";
    EXPECT_EQ(ids(filter), Texts{"a"});
}
