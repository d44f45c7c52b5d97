#include "ops/doctor_evidence.hpp"

#include <algorithm>
#include <chrono>
#include <rqxx/error.hpp>

#include "ops/batch_size.hpp"
#include "ops/lua_scripts.hpp"
#include "ops/upkeep.hpp"

namespace rqxx::ops::doctor {

void Evidence::add(std::string_view code, std::string_view queue, std::string key, std::string id,
                   std::string detail) {
    if (options_->concerns(queue))
        suspects_[code].push_back({std::move(key), std::move(id), std::move(detail), {}, {}});
}

asio::awaitable<void> Evidence::add_confirmed(std::string_view code,
                                              const std::vector<Suspect>& list) {
    const auto answers = co_await ask(code, list, false);
    for (std::size_t i = 0; i < list.size(); ++i)
        if (answers[i].code != 0) suspects_[code].push_back(list[i]);
}

void Evidence::add_fact(std::string_view code, std::uint64_t count, std::string subject,
                        std::string note) {
    auto& fact = facts_[code];
    fact.count += count;
    if (fact.examples.size() < options_->examples)
        fact.examples.push_back({std::move(subject), {}, std::move(note)});
}

void Evidence::remove_repeated() {
    for (auto& [code, list] : suspects_) {
        std::ranges::sort(list);
        const auto rest = std::ranges::unique(list);
        list.erase(rest.begin(), rest.end());
    }
}

bool Evidence::any_suspect() const noexcept {
    return std::ranges::any_of(suspects_, [](const auto& entry) { return !entry.second.empty(); });
}

asio::awaitable<void> Evidence::look(bool second) {
    for (auto& [code, list] : suspects_) {
        options_->report(second ? "looking again" : "looking closer", 0, 0);
        const auto answers = co_await ask(code, list, false);
        std::vector<Suspect> kept;
        for (std::size_t i = 0; i < list.size(); ++i) {
            if (answers[i].code == 0 || (second && answers[i].mark != list[i].mark)) continue;
            list[i].mark = answers[i].mark;
            list[i].note = answers[i].note;
            kept.push_back(std::move(list[i]));
        }
        list = std::move(kept);
    }
}

asio::awaitable<std::map<std::string_view, std::uint64_t>> Evidence::mend() {
    std::map<std::string_view, std::uint64_t> mended;
    for (const auto& kind : finding_kinds()) {
        const auto found = suspects_.find(kind.code);
        if (kind.repair.empty() || found == suspects_.end()) continue;
        options_->report("mending", 0, 0);
        auto list = found->second;
        while (!list.empty()) {
            const auto answers = co_await ask(kind.code, list, true);
            std::vector<Suspect> again;
            for (std::size_t i = 0; i < list.size(); ++i) {
                if (answers[i].code == 2) ++mended[kind.code];
                if (answers[i].code != 3) continue;
                list[i].mark = answers[i].mark;
                again.push_back(std::move(list[i]));
            }
            list = std::move(again);
        }
    }
    co_return mended;
}

Evidence::Fact Evidence::found(std::string_view code) const {
    if (const auto fact = facts_.find(code); fact != facts_.end()) return fact->second;
    const auto list = suspects_.find(code);
    if (list == suspects_.end()) return {};
    Fact fact{list->second.size(), {}};
    for (const auto& suspect : list->second) {
        if (fact.examples.size() >= options_->examples) break;
        const bool about_key = suspect.id.empty() || code == "wrong-type";
        // These have the value that was found in the place of the key.
        const bool has_key = !about_key && code != "bad-field" && code != "bad-worker";
        fact.examples.push_back({about_key ? suspect.key : suspect.id,
                                 has_key ? suspect.key : std::string(), suspect.note});
    }
    return fact;
}

asio::awaitable<std::vector<Evidence::Answer>> Evidence::ask(std::string_view code,
                                                             const std::vector<Suspect>& list,
                                                             bool mend) {
    std::vector<Answer> answers;
    answers.reserve(list.size());
    BatchSize batch;
    while (answers.size() < list.size()) {
        const std::size_t first = answers.size();
        const std::size_t last = std::min(first + batch.get(), list.size());
        std::vector<std::string> args{std::string(code), mend ? "1" : "0", abandoned_exc_string()};
        for (std::size_t i = first; i < last; ++i)
            for (const auto* text : {&list[i].key, &list[i].id, &list[i].detail, &list[i].mark})
                args.push_back(*text);
        const auto before = std::chrono::steady_clock::now();
        const Reply reply = co_await redis_->eval(lua::doctor, {}, std::move(args));
        batch.took(std::chrono::steady_clock::now() - before);
        const auto& rows = reply.as_array();
        if (rows.size() != last - first)
            throw Error(Errc::protocol, "the doctor script gave an unexpected answer");
        for (const auto& row : rows) {
            const auto& cells = row.as_array();
            answers.push_back(
                {cells.at(0).as_integer(), cells.at(1).as_text(), cells.at(2).as_text()});
        }
    }
    co_return answers;
}

}  // namespace rqxx::ops::doctor
