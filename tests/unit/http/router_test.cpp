#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <cmath>
#include <http/gate.hpp>
#include <rqxx/error.hpp>
#include <rqxx/http/router.hpp>

using namespace rqxx;
using namespace rqxx::http;
namespace asio = boost::asio;

namespace {

Handler says(std::string text) {
    return [text](Request request) -> asio::awaitable<Response> {
        std::string params;
        for (const auto& [name, value] : request.path_params)
            params += " " + name + "=" + value;
        co_return Response{.body = text + params};
    };
}

Handler throws(std::function<void()> action) {
    return [action](Request) -> asio::awaitable<Response> {
        action();
        co_return Response{};
    };
}

Response ask(const Router& router, Method method, std::string target, std::string body = {}) {
    Request request;
    request.method = method;
    request.target = std::move(target);
    request.body = std::move(body);
    asio::io_context context(1);
    Response answer;
    asio::co_spawn(context, router.dispatch(std::move(request)),
                   [&](std::exception_ptr error, Response response) {
                       ASSERT_FALSE(error);
                       answer = std::move(response);
                   });
    context.run();
    return answer;
}

std::string header(const Response& response, std::string_view name) {
    for (const auto& [key, value] : response.headers) {
        if (key == name) return value;
    }
    return {};
}

}  // namespace

TEST(router, prefers_literal_segments_and_decodes_each) {
    Router router;
    router.add(Method::get, "/jobs/{id}", {}, says("job"));
    router.add(Method::get, "/jobs/recent", {}, says("recent"));
    EXPECT_EQ(ask(router, Method::get, "/jobs/recent").body, "recent");
    EXPECT_EQ(ask(router, Method::get, "/jobs/a%2Fb%20c").body, "job id=a/b c");
    EXPECT_EQ(ask(router, Method::get, "/jobs/").status, 404);
    EXPECT_EQ(ask(router, Method::get, "/jobs/a/b").status, 404);
    EXPECT_EQ(ask(router, Method::get, "no slash").status, 400);
}

TEST(router, answers_head_and_options_and_names_allowed_methods) {
    Router router;
    router.add(Method::get, "/a", {}, says("a"));
    router.add(Method::post, "/a", {}, says("posted"));
    EXPECT_EQ(ask(router, Method::head, "/a").status, 200);
    const Response options = ask(router, Method::options, "/a");
    EXPECT_EQ(options.status, 204);
    EXPECT_EQ(header(options, "Allow"), "GET, HEAD, OPTIONS, POST");
    const Response refused = ask(router, Method::delete_, "/a");
    EXPECT_EQ(refused.status, 405);
    EXPECT_EQ(header(refused, "Allow"), "GET, HEAD, OPTIONS, POST");
}

TEST(router, turns_every_exception_into_a_problem_without_internals) {
    Router router;
    router.add(Method::get, "/teapot", {},
               throws([] { throw HttpError(409, "it is busy", "busy"); }));
    router.add(Method::get, "/redis", {},
               throws([] { throw Error(Errc::connection, "secret host"); }));
    router.add(Method::get, "/usage", {},
               throws([] { throw Error(Errc::usage, "timeout: too long"); }));
    router.add(Method::get, "/bug", {}, throws([] { throw std::runtime_error("secret"); }));
    EXPECT_EQ(boost::json::parse(ask(router, Method::get, "/teapot").body).at("code").as_string(),
              "busy");
    const Response redis = ask(router, Method::get, "/redis");
    EXPECT_EQ(redis.status, 503);
    EXPECT_EQ(header(redis, "Retry-After"), "1");
    EXPECT_EQ(ask(router, Method::get, "/usage").status, 422);
    const Response bug = ask(router, Method::get, "/bug");
    EXPECT_EQ(bug.status, 500);
    EXPECT_EQ((redis.body + bug.body).find("secret"), std::string::npos);
}

TEST(router, describes_its_routes_as_openapi) {
    Router router;
    RouteDoc doc;
    doc.summary = "One";
    doc.problems = {404};
    router.add(Method::get, "/jobs/{id}", doc, says(""));
    RouteDoc hidden;
    hidden.hidden = true;
    router.add(Method::get, "/", hidden, says(""));
    const auto document = router.openapi("t", "1");
    const auto& paths = document.at("paths").as_object();
    EXPECT_EQ(paths.size(), 1u);
    const auto& get = paths.at("/jobs/{id}").at("get");
    EXPECT_EQ(get.at("parameters").as_array().at(0).at("in").as_string(), "path");
    EXPECT_TRUE(get.at("responses").as_object().contains("404"));
}

TEST(json_body, is_read_whatever_its_content_type_says_and_refused_where_it_is_no_json) {
    Request request;
    request.body = "{";
    EXPECT_THROW((void)request.json(), HttpError);
    request.body = "{}";
    EXPECT_TRUE(request.json().is_object());
    for (const char* type : {"application/x-www-form-urlencoded", "text/plain", "junk;", ""}) {
        request.headers = {{"content-type", type}};
        EXPECT_TRUE(request.json().is_object()) << type;
    }
}

TEST(json_answer, never_contains_nan) {
    const Response response =
        json_response(200, boost::json::object{{"a", std::nan("")}, {"b", 0.25}});
    EXPECT_EQ(response.body, R"({"a":null,"b":0.25})");
}

TEST(gate, lets_only_this_machines_names_in_without_a_token) {
    ServerOptions options;
    const Gate gate(options);
    const auto status = [&](std::string host) {
        Request request;
        request.headers = {{"Host", std::move(host)}};
        const auto refusal = gate.check(request);
        return refusal ? refusal->status() : 200;
    };
    for (const char* good :
         {"localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "192.168.1.1"})
        EXPECT_EQ(status(good), 200) << good;
    for (const char* bad : {"evil.example", "localhost.evil.example:8000", "127.0.0.1.nip.io"})
        EXPECT_EQ(status(bad), 421) << bad;
}

namespace {

/// Answers that many ask for.
class shared_answers : public testing::Test {
protected:
    shared_answers() {
        RouteDoc doc;
        doc.keeps_to_queues = true;
        router.add(Method::get, "/figures", doc,
                   [this](Request request) { return figures(request); });
        router.add(Method::post, "/figures", {}, says("changed"));
        RouteDoc own;
        own.personal = true;
        router.add(Method::get, "/me", own, [](Request request) -> asio::awaitable<Response> {
            co_return Response{.body = actor_of(request)};
        });
    }

    /// Ends when it is told to, so that others come meanwhile.
    asio::awaitable<Response> figures(Request request) {
        const int mine = ++readings;
        seen = request;
        if (slow) co_await asio::post(context, asio::use_awaitable);
        if (fails) throw HttpError(409, "not now");
        co_return Response{.body = std::to_string(mine)};
    }

    struct Who {
        std::string name = "ann";
        std::vector<std::string> queues{"*"};
        bool redact = false;
    };

    void ask(std::vector<Response>& answers, const Who& who, std::string target = "/figures",
             Headers headers = {{"Cache-Control", "max-age=1"}}, Method method = Method::get) {
        Request request;
        request.method = method;
        request.target = std::move(target);
        request.headers = std::move(headers);
        request.remote = "10.0.0.1";
        const Guard guard = [who](Request& asked, Scope, bool) -> asio::awaitable<void> {
            Principal principal;
            principal.name = who.name;
            principal.queues = who.queues;
            principal.redaction.all = who.redact;
            principal.auth = "token";
            asked.principal = std::make_shared<const Principal>(std::move(principal));
            co_return;
        };
        asio::co_spawn(context, router.dispatch(std::move(request), guard),
                       [&answers](std::exception_ptr error, Response response) {
                           ASSERT_FALSE(error);
                           answers.push_back(std::move(response));
                       });
    }

    std::string one(const Who& who, std::string target = "/figures",
                    Headers headers = {{"Cache-Control", "max-age=1"}},
                    Method method = Method::get) {
        std::vector<Response> answers;
        ask(answers, who, std::move(target), std::move(headers), method);
        run();
        return answers.at(0).body;
    }

    void run() {
        context.restart();
        context.run();
    }

    asio::io_context context{1};
    Router router;
    int readings = 0;
    bool slow = false, fails = false;
    Request seen;
};

}  // namespace

TEST_F(shared_answers, cost_one_reading_however_many_ask_at_once_or_in_turn) {
    slow = true;
    router.add(Method::get, "/other", {}, says("other"));
    std::vector<Response> answers;
    for (int i = 0; i < 200; ++i)
        ask(answers, {.name = std::to_string(i)});
    run();
    ASSERT_EQ(answers.size(), 200u);
    for (const auto& answer : answers)
        EXPECT_EQ(answer.body, "1");
    EXPECT_EQ(one({}), "1");
    EXPECT_EQ(readings, 1);
    EXPECT_EQ(header(answers.back(), "Age"), "0");
}

TEST_F(shared_answers, are_for_those_alone_who_take_them) {
    EXPECT_EQ(one({}), "1");
    EXPECT_EQ(one({}, "/figures", {}), "2");
    for (const char* other : {"max-age=0", "no-cache, max-age=1", "max-age=x", "max-age="})
        EXPECT_NE(one({}, "/figures", {{"Cache-Control", other}}), "1") << other;
    EXPECT_EQ(one({}, "/figures", {{"Cache-Control", "max-stale, max-age=5"}}), "1");
}

TEST_F(shared_answers, are_told_apart_by_all_that_the_handler_sees) {
    const std::vector<Who> different{
        {}, {.queues = {"a"}}, {.queues = {"b"}}, {.queues = {"a", "b"}}, {.redact = true}};
    for (std::size_t i = 0; i < different.size(); ++i)
        EXPECT_EQ(one(different[i]), std::to_string(i + 1));
    EXPECT_EQ(one({.name = "bob", .queues = {"b"}}), "3");
    EXPECT_EQ(one({}, "/figures?queue=a"), "6");
    EXPECT_EQ(one({}, "/figures", {{"Cache-Control", "max-age=1"}, {"If-None-Match", "x"}}), "7");
    one({}, "/figures?queue=b", {{"Cache-Control", "max-age=1"}, {"Cookie", "secret"}});
    EXPECT_EQ(seen.principal->name, "");
    EXPECT_EQ(seen.remote, "");
    EXPECT_FALSE(seen.header("Cookie"));
    EXPECT_EQ(one({.name = "bob"}, "/me"), "bob");
    EXPECT_EQ(one({.name = "ann"}, "/me"), "ann");
}

TEST_F(shared_answers, end_with_a_change_even_while_they_are_read) {
    EXPECT_EQ(one({}), "1");
    EXPECT_EQ(one({}, "/figures", {}, Method::post), "changed");
    EXPECT_EQ(one({}), "2");
    slow = true;
    router.forget_shared();
    std::vector<Response> answers;
    ask(answers, {});
    context.restart();
    while (readings < 3)
        context.run_one();
    router.forget_shared();
    ask(answers, {});
    context.run();
    ASSERT_EQ(answers.size(), 2u);
    EXPECT_NE(answers[0].body, answers[1].body);
}

TEST_F(shared_answers, that_fail_are_told_to_those_who_wait_and_asked_for_again_by_others) {
    slow = fails = true;
    std::vector<Response> answers;
    for (int i = 0; i < 3; ++i)
        ask(answers, {});
    run();
    for (const auto& answer : answers)
        EXPECT_EQ(answer.status, 409);
    EXPECT_EQ(readings, 1);
    fails = false;
    EXPECT_EQ(one({}), "2");
}

namespace {

/// Lines without an end, one each 0.6 s.
class SlowLines : public BodySource {
public:
    asio::awaitable<std::string> next() override {
        asio::steady_timer timer(co_await asio::this_coro::executor,
                                 std::chrono::milliseconds(600));
        co_await timer.async_wait(asio::use_awaitable);
        co_return "line\n";
    }
};

/// Reads until the end; how many lines came, and whether it broke off.
asio::awaitable<std::pair<int, bool>> read_lines(const Router& router, Guard guard) {
    Request request;
    request.target = "/lines";
    const Response response = co_await router.dispatch(std::move(request), std::move(guard));
    int lines = 0;
    try {
        while (lines < 10 && !(co_await response.source->next()).empty())
            ++lines;
    } catch (const HttpError&) {
        co_return std::pair(lines, true);
    }
    co_return std::pair(lines, false);
}

}  // namespace

TEST(router, a_list_that_streams_breaks_off_when_its_reader_may_see_it_no_more) {
    Router router;
    router.add(Method::get, "/lines", {}, [](Request) -> asio::awaitable<Response> {
        Response response;
        response.content_type = "application/x-ndjson";
        response.source = std::make_shared<SlowLines>();
        co_return response;
    });
    int asked = 0;
    const Guard guard = [&asked](Request&, Scope, bool) -> asio::awaitable<void> {
        if (++asked > 1) throw HttpError(401, "revoked");
        co_return;
    };
    asio::io_context context(1);
    std::pair<int, bool> end;
    asio::co_spawn(context, read_lines(router, guard),
                   [&](std::exception_ptr error, std::pair<int, bool> result) {
                       ASSERT_FALSE(error);
                       end = result;
                   });
    context.run();
    EXPECT_EQ(end.first, 1);
    EXPECT_TRUE(end.second) << "it looks as if that were all";
}
